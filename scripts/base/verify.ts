/**
 * Measures what fine-tuning makes of the base: answers to the 100 held-out prompts before and after, over three seeds.
 *
 *     npx tsx scripts/base/verify.ts [--seeds 1,2,3] [--config examples/demo.json] [--out runs/verify] [--write]
 *
 * `--write` puts the table into docs/base-model.md. Exits with 1 where a requirement is missed.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { loadConfig } from '../../lib/cli/config.ts'
import { loadModel, Trainer } from '../../lib/index.ts'
import { type Judged, judge, passes, type Summary, summarize, thresholds } from './judge.ts'

const REPORT = 'docs/base-model.md'
const BEGIN = '<!-- results: begin -->'
const END = '<!-- results: end -->'

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '1,2,3' },
    config: { type: 'string', default: 'examples/demo.json' },
    out: { type: 'string', default: 'runs/verify' },
    write: { type: 'boolean', default: false },
  },
})

async function judged(folder: string, name: string): Promise<Summary> {
  const model = await loadModel(folder, { precision: config.precision ?? 'auto' })
  try {
    const results = await judge(model, 'assets/heldout.jsonl')
    save(name, results)
    return summarize(results)
  } finally {
    model.close()
  }
}

function save(name: string, results: Judged[]): void {
  mkdirSync(values.out, { recursive: true })
  writeFileSync(join(values.out, `${name}.jsonl`), results.map((result) => `${JSON.stringify(result)}\n`).join(''))
}

interface Line extends Summary {
  model: string
  seconds?: number
  loss?: number
}

const percent = (share: number) => `${Math.round(1000 * share) / 10} %`

function table(lines: Line[]): string {
  return [
    '| model | stops by itself | accepted | stories | questions | with new words | training, s | last loss |',
    '| --- | --- | --- | --- | --- | --- | --- | --- |',
    ...lines.map((line) => {
      const shares = [line.stopped, line.accepted, line.stories, line.questions, line.newWords].map(percent)
      const cells = [line.model, ...shares, line.seconds?.toFixed(0) ?? '', line.loss?.toFixed(3) ?? '']
      return `| ${cells.join(' | ')} |`
    }),
  ].join('\n')
}

function writeReport(text: string): void {
  const report = readFileSync(REPORT, 'utf8')
  const [from, to] = [report.indexOf(BEGIN), report.indexOf(END)]
  if (from < 0 || to < from) throw new Error(`${REPORT} lacks the marks ${BEGIN} and ${END}.`)
  writeFileSync(REPORT, `${report.slice(0, from + BEGIN.length)}\n\n${text}\n\n${report.slice(to)}`)
}

const config = loadConfig(values.config, [])
if (typeof config.model !== 'string') throw new Error(`${values.config} has to name a model folder.`)
const lines: Line[] = [{ model: 'base', ...(await judged(config.model, 'base')) }]
console.log(lines[0])
for (const seed of values.seeds.split(',').map(Number)) {
  const output = join(values.out, `seed-${seed}`)
  const result = await new Trainer({ ...config, seed, output }).fit()
  const summary = await judged(output, `seed-${seed}`)
  lines.push({ model: `tuned, seed ${seed}`, ...summary, seconds: result.seconds, loss: result.loss })
  console.log(lines.at(-1))
}
console.log(table(lines))
if (values.write) writeReport(table(lines))

const [base, ...tuned] = lines
const missed = [base!, ...tuned].filter((line) => !passes(line, line === base ? thresholds.base : thresholds.tuned))
for (const { model } of missed) console.error(`${model}: misses the requirement`)
process.exitCode = missed.length > 0 ? 1 : 0
