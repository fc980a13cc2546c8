/** `tunesmith preview CONFIG`: conversations as training will see them, every token with its loss weight. */
import { writeFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { nothingLeft } from '../batch/tally.ts'
import { actedOn, verdictOf } from '../chat/doctor.ts'
import { TunesmithError } from '../errors.ts'
import { htmlPreview } from '../preview/html.ts'
import { jsonPreview } from '../preview/json.ts'
import type { Preview } from '../preview/preview.ts'
import { type TerminalOptions, terminalPreview } from '../preview/terminal.ts'
import { type Command, exitCode, type Output, onlyPositional, readArguments, type Streams, usage } from './command.ts'
import { loadConfig } from './config.ts'
import { dataLines } from './data-lines.ts'
import { count, percent, table } from './format.ts'
import { warningLine } from './progress-lines.ts'
import { hasColors } from './terminal.ts'

const help = `usage: tunesmith preview CONFIG [--rows N] [--html FILE | --json] [--set key=value]... [--color WHEN]

Shows the first rows of the training data as training will see them: rendered, tokenised, every token with its loss
weight as its background (in a pipe: what carries loss in brackets), a mixture's entries in turn, and under them the
tokens per role.
Nothing is trained, and no weights are read. Exit code 1 where nothing of these rows could train.

  CONFIG, --set     as in \`tunesmith train\`
  --rows N          how many rows (default 3)
  --html FILE       writes them to FILE as one HTML page instead; id and weight of each token under the pointer
  --json            one JSON object per conversation on stdout: ids, weights, source, tokens, turns; a last one with the
                    summary: roles, doctor, counts, formats, warnings
  --color WHEN      auto (on a terminal, unless NO_COLOR is set), always, never (default auto)
`

async function run(args: string[], { stdout, stderr }: Streams): Promise<number> {
  const { values, positionals } = readArguments(args, {
    set: { type: 'string', multiple: true, default: [] },
    rows: { type: 'string' },
    html: { type: 'string' },
    json: { type: 'boolean', default: false },
    color: { type: 'string', default: 'auto' },
  })
  const config = loadConfig(onlyPositional(positionals, 'CONFIG'), values.set)
  const rows = values.rows === undefined ? undefined : Number(values.rows)
  if (rows !== undefined && !(Number.isSafeInteger(rows) && rows > 0))
    throw usage(`--rows must be a whole number above 0; found '${values.rows}'`)
  if (values.json && values.html !== undefined) throw usage('--json and --html exclude each other')
  const color = wantsColor(values.color, stdout)
  const { Trainer } = await import('../trainer/trainer.ts')
  const trainer = new Trainer(config)
  trainer.on('warning', (event) => stderr.write(`${warningLine(event)}\n`))
  const preview = await trainer.preview(rows)
  if (values.json) stdout.write(jsonPreview(preview))
  else await show(preview, values.html, { color, width: stdout.columns ?? 80 }, stdout)
  if (preview.examples.length === 0) throw nothingLeft(preview.counts)
  return actedOn(preview.doctor).some(({ verdict }) => verdict === 'error') ? exitCode.failed : exitCode.ok
}

async function show(preview: Preview, html: string | undefined, options: TerminalOptions, stdout: Output) {
  if (html === undefined) {
    stdout.write(`${terminalPreview(preview, options)}\n`)
  } else {
    await writePage(html, htmlPreview(preview))
    stdout.write(`${preview.examples.length} examples written to ${html}\n`)
  }
  stdout.write(`${summaryTable(preview)}\n`)
}

function wantsColor(when: string, stdout: Output): boolean {
  if (when === 'always' || when === 'never') return when === 'always'
  if (when !== 'auto') throw usage(`--color is auto, always or never; found '${when}'`)
  return hasColors(stdout)
}

async function writePage(file: string, page: string): Promise<void> {
  try {
    await writeFile(file, page)
  } catch (cause) {
    throw new TunesmithError(
      'ERR_OUTPUT_NOT_WRITABLE',
      `${resolve(file)} cannot be written: ${(cause as Error).message}`,
      {
        cause,
      },
    )
  }
}

/** What stands under the conversations: tokens per role, the template, and what became of the rows; the doctor's verdict. */
export function summaryTable({ roles, template, doctor, formats, counts }: Preview): string {
  const total = roles.reduce((sum, { tokens }) => sum + tokens, 0)
  return table([
    ['Tokens of these rows, and those with loss'],
    ...roles.map(
      ({ role, tokens, supervisedTokens }) =>
        [role, `${count(tokens)} (${percent(tokens / total)}), ${count(supervisedTokens)} with loss`] as const,
    ),
    ['Data'],
    ['rows', count(counts.rows)],
    ...formats.map(({ file, format, evidence }) => ['format', `${format}, ${evidence} (${file})`] as const),
    ...dataLines(counts),
    ['chat template', template],
    ...(doctor.length > 0 ? [[`Template doctor: ${verdictOf(doctor)}`] as const] : []),
    ...doctor.map(
      ({ check, verdict, detail }) => [check, verdict === 'ok' ? detail : `${verdict}: ${detail}`] as const,
    ),
  ])
}

export const preview: Command = {
  summary: 'show conversations as training will see them, every token with its loss weight',
  help,
  run,
}
