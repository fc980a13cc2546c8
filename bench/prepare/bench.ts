/**
 * Rows and tokens per second of the preparation of a file of conversations: ours cold and from the cache, TRL's, and a
 * bare encodeBatch of the same texts, in turns. README.md says how to run it and how to read the result.
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { BenchProcess } from '../process.ts'

const here = dirname(fileURLToPath(import.meta.url))
const shared = resolve(here, '..', '..', '..', 'shared')
const { values } = parseArgs({
  options: {
    python: { type: 'string', default: process.env.PYTHON ?? 'python3' },
    data: { type: 'string', default: join(shared, 'data/dolly-15k/dolly-15k-messages.jsonl') },
    tokenizers: { type: 'string', default: 'llama3,qwen3' },
    rounds: { type: 'string', default: '5' },
    out: { type: 'string' },
  },
})
const rounds = Number(values.rounds)
const work = mkdtempSync(join(tmpdir(), 'tunesmith-bench-prepare-'))

interface Answer {
  seconds: number
  /** Seconds of all threads. */
  cpu: number
  rows: number
  tokens: number
  supervisedTokens: number
  microBatches: number
  /** Longest wait of the event loop in seconds; ours only. */
  blocked: number
  /** Seconds of reading the file, not in `seconds`; TRL only. */
  reading: number
}

const KINDS = ['cold', 'bare', 'cached', 'trl'] as const
type Kind = (typeof KINDS)[number]

interface Result {
  tokenizer: string
  versions: Record<string, string>
  rows: number
  tokens: number
  supervisedTokens: number
  microBatches: number
  seconds: Record<Kind, number[]>
  cpu: Record<Kind, number[]>
  /** TRL's reading of the file, on top of its `seconds`. */
  reading: number[]
  /** Writing the cache included. */
  fill: number
  blocked: number[]
  /** Medians: seconds of each kind, and of the pairs of one round TRL's time and the bare one's against our cold one. */
  median: Record<Kind, number> & { trlOverCold: number; coldOverBare: number }
}

async function measure(tokenizer: string): Promise<Result> {
  const folder = join(shared, 'tokenizers', tokenizer)
  const template = trainingTemplate(tokenizer)
  const common = ['--data', values.data, '--tokenizer', folder, '--template', template]
  const tsx = ['--import', 'tsx', '--expose-gc', join(here, 'worker.ts')]
  const ours = new BenchProcess('tunesmith', process.execPath, [...tsx, ...common, '--cache', join(work, tokenizer)])
  await ours.next()
  const trlArgs = [join(here, 'trl_prepare.py'), ...common, '--output', join(work, 'trl')]
  const trl = new BenchProcess('TRL', values.python, trlArgs, { HF_HUB_OFFLINE: '1' })
  const { versions } = await trl.next<{ versions: Record<string, string> }>()
  try {
    const paths = { ours: join(work, 'ours.bin'), trl: join(work, 'trl.bin') }
    const { rows, tokens, supervisedTokens, microBatches } = await ours.ask<Answer>({ do: 'write', path: paths.ours })
    await trl.ask({ do: 'cold', path: paths.trl })
    compare(readFileSync(paths.ours), readFileSync(paths.trl))
    const { seconds: fill } = await ours.ask<Answer>({ do: 'fill' })
    const seconds: Record<Kind, number[]> = { cold: [], bare: [], cached: [], trl: [] }
    const cpu: Record<Kind, number[]> = { cold: [], bare: [], cached: [], trl: [] }
    const reading: number[] = []
    const blocked: number[] = []
    for (let round = 0; round < rounds; round++) {
      // Who comes first changes from round to round.
      for (const kind of round % 2 === 0 ? KINDS : KINDS.toReversed()) {
        const answer = await (kind === 'trl' ? trl : ours).ask<Answer>({ do: kind })
        seconds[kind].push(answer.seconds)
        cpu[kind].push(answer.cpu)
        if (kind === 'trl') reading.push(answer.reading)
        if (kind === 'cold') blocked.push(answer.blocked)
      }
      const told = KINDS.map((kind) => `${kind} ${seconds[kind].at(-1)!.toFixed(2)} s`).join(', ')
      process.stderr.write(`${tokenizer} ${round + 1}/${rounds}: ${told}\n`)
    }
    const middle = Object.fromEntries(KINDS.map((kind) => [kind, median(seconds[kind])])) as Record<Kind, number>
    const pairs = (a: Kind, b: Kind) => median(seconds[a].map((value, round) => value / seconds[b][round]!))
    return {
      tokenizer,
      versions,
      rows,
      tokens,
      supervisedTokens,
      microBatches,
      seconds,
      cpu,
      reading,
      fill,
      blocked,
      median: { ...middle, trlOverCold: pairs('trl', 'cold'), coldOverBare: pairs('cold', 'bare') },
    }
  } finally {
    await Promise.all([ours.stop(), trl.stop()])
  }
}

/** TRL's own template for this model with generation tags. */
function trainingTemplate(name: string): string {
  const code = 'import trl, pathlib; print(pathlib.Path(trl.__file__).parent / "chat_templates")'
  const folder = execFileSync(values.python, ['-c', code], { encoding: 'utf8' }).trim()
  return join(folder, `${name}_training.jinja`)
}

/** Both sides must have the same ids and the same mask in every row, or nothing is timed. */
function compare(ours: Buffer, trl: Buffer): void {
  let at = 0
  for (let row = 1; at < ours.length || at < trl.length; row++) {
    const length = ours.readInt32LE(at)
    const end = at + 4 + 5 * length
    if (!ours.subarray(at, end).equals(trl.subarray(at, end))) throw new Error(`row ${row} differs from TRL's`)
    at = end
  }
}

function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

const perSecond = (count: number, seconds: number) => Math.round(count / seconds).toLocaleString('en-US')

try {
  const results: Result[] = []
  for (const tokenizer of values.tokenizers.split(',')) results.push(await measure(tokenizer))
  const head = ['tokenizer', 'what', 'seconds', 'rows/s', 'tokens/s', 'CPU seconds', 'against ours cold']
  for (const row of [head, head.map(() => '---')]) console.log(`| ${row.join(' | ')} |`)
  const names: Record<Kind, string> = { cold: 'ours', bare: 'bare encodeBatch', cached: 'ours, cached', trl: 'TRL' }
  for (const { tokenizer, rows, tokens, cpu, median: middle } of results) {
    for (const kind of KINDS) {
      const against = {
        cold: 1,
        bare: 1 / middle.coldOverBare,
        cached: middle.cached / middle.cold,
        trl: middle.trlOverCold,
      }
      const cells = [tokenizer, names[kind], middle[kind].toFixed(2), perSecond(rows, middle[kind])]
      console.log(
        `| ${[...cells, perSecond(tokens, middle[kind]), median(cpu[kind]).toFixed(2), against[kind].toFixed(2)].join(' | ')} |`,
      )
    }
  }
  const machine = { cpu: cpus()[0]!.model, cores: cpus().length, node: process.version }
  if (values.out) {
    mkdirSync(dirname(values.out), { recursive: true })
    writeFileSync(values.out, `${JSON.stringify({ machine, data: 'dolly-15k', results }, null, 1)}\n`)
  }
} finally {
  rmSync(work, { recursive: true, force: true })
}
