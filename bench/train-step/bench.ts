/**
 * Tokens per second and peak memory of a whole optimizer step in the shape of SmolLM2-135M, ours and PyTorch's in turns.
 * README.md says how to run it and how to read the result.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { addon } from '../../lib/native/load.ts'
import { Side } from './side.ts'
import { type Case, makeBatch, type Profile } from './step.ts'

const { values } = parseArgs({
  options: {
    python: { type: 'string', default: process.env.PYTHON ?? 'python3' },
    model: { type: 'string', default: join(tmpdir(), 'tunesmith-bench-smollm2-135m') },
    layers: { type: 'string', default: '30' },
    sequences: { type: 'string', default: '4' },
    length: { type: 'string', default: '256' },
    threads: { type: 'string', default: '2' },
    rounds: { type: 'string', default: '9' },
    variant: { type: 'string', default: 'eager' },
    cases: { type: 'string', default: 'all,half' },
    only: { type: 'string' },
    out: { type: 'string' },
  },
})
const here = dirname(fileURLToPath(import.meta.url))
const sequences = Number(values.sequences)
const length = Number(values.length)
const tokens = sequences * length
const rounds = Number(values.rounds)
const vocabSize = 49152
const warmupSeconds = 3

function startOurs(which: Case, ...more: string[]): Promise<Side> {
  const batch = makeBatch(which, sequences, length, vocabSize)
  const supervised = batch.weights.flatMap((row) => row.slice(1)).filter((weight) => weight > 0).length
  const sizes = ['--tokens', `${tokens}`, '--supervised', `${supervised}`, '--sequences', `${sequences}`]
  const common = ['--model', values.model, '--threads', values.threads]
  return Side.start('tunesmith', process.execPath, [
    '--import',
    'tsx',
    join(here, 'worker.ts'),
    ...common,
    ...sizes,
    ...more,
  ])
}

function startTorch(): Promise<Side> {
  const args = [join(here, 'torch_step.py'), '--model', values.model, '--threads', values.threads]
  return Side.start('torch', values.python, [...args, '--variant', values.variant])
}

interface Timing {
  case: Case
  loss: { ours: number; torch: number }
  gradNorm: { ours: number; torch: number }
  seconds: { ours: number[]; torch: number[] }
  /** Medians: seconds of a step, and torch's time over ours of each pair. */
  median: { ours: number; torch: number; ratio: number }
}

/** Both sides take turns, step by step; which goes first alternates too. */
async function time(which: Case): Promise<Timing> {
  const ours = await startOurs(which)
  const torch = await startTorch()
  try {
    if (ours.hello.parameters !== torch.hello.parameters) throw new Error('the sides have different models')
    const batch = makeBatch(which, sequences, length, vocabSize)
    const rows = await Promise.all([ours.batch(batch), torch.batch(batch)])
    if (rows[0].rows !== rows[1].rows) throw new Error(`${rows[0].rows} supervised rows against ${rows[1].rows}`)
    const checks = { ours: await ours.check(), torch: await torch.check() }
    const loss = agree('loss', checks.ours.loss, checks.torch.loss, 1e-3)
    const gradNorm = agree('gradient norm', checks.ours.gradNorm, checks.torch.gradNorm, 2e-2)
    for (const side of [ours, torch]) await warmUp(side)
    const seconds = { ours: [] as number[], torch: [] as number[] }
    for (let round = 0; round < rounds; round++) {
      const order = round % 2 === 0 ? (['ours', 'torch'] as const) : (['torch', 'ours'] as const)
      for (const key of order) {
        const side = key === 'ours' ? ours : torch
        seconds[key].push(...(await side.steps(1)).seconds)
      }
      progress(
        `${which} ${round + 1}/${rounds}: ${seconds.ours.at(-1)!.toFixed(2)} s, ${seconds.torch.at(-1)!.toFixed(2)} s`,
      )
    }
    const ratios = seconds.ours.map((own, round) => seconds.torch[round]! / own)
    const middle = { ours: median(seconds.ours), torch: median(seconds.torch), ratio: median(ratios) }
    return { case: which, loss, gradNorm, seconds, median: middle }
  } finally {
    await Promise.all([ours.stop(), torch.stop()])
  }
}

async function warmUp(side: Side): Promise<void> {
  let spent = 0
  for (let steps = 0; steps < 2 || spent < warmupSeconds; steps++) spent += (await side.steps(1)).seconds[0]!
}

/** Rounding to bfloat16 is all that may differ. */
function agree(what: string, ours: number, torch: number, bound: number): { ours: number; torch: number } {
  if (Math.abs(ours / torch - 1) <= bound) return { ours, torch }
  throw new Error(`${what}: ${ours} against PyTorch's ${torch}; nothing is timed before they agree within ${bound}`)
}

interface Memory {
  case: Case
  /** Bytes of parameters, gradients and both moments in float32, the same on both sides. */
  state: number
  peak: { ours: number; torch: number }
}

/** Two steps in a fresh process per side. */
async function memory(which: Case): Promise<Memory> {
  const peaks: number[] = []
  let parameters = 0
  for (const start of [() => startOurs(which), startTorch]) {
    const side = await start()
    try {
      await side.batch(makeBatch(which, sequences, length, vocabSize))
      await side.steps(2)
      peaks.push((await side.memory()).peak)
      parameters = side.hello.parameters
    } finally {
      await side.stop()
    }
  }
  return { case: which, state: parameters * 16, peak: { ours: peaks[0]!, torch: peaks[1]! } }
}

/** Where our time goes: three steps after two of warming up. */
async function profile(which: Case): Promise<Profile['ops']> {
  const side = await startOurs(which, '--profile')
  try {
    await side.batch(makeBatch(which, sequences, length, vocabSize))
    await side.steps(2)
    await side.profile()
    await side.steps(3)
    const { ops } = await side.profile()
    return ops.map((op) => ({ ...op, calls: op.calls / 3, seconds: op.seconds / 3 }))
  } finally {
    await side.stop()
  }
}

function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

function progress(text: string): void {
  process.stderr.write(`${text}\n`)
}

function table(head: string[], rows: (string | number)[][]): void {
  for (const row of [head, head.map(() => '---'), ...rows]) console.log(`| ${row.join(' | ')} |`)
  console.log()
}

const megabytes = (bytes: number) => Math.round(bytes / 1e6)
const cases = values.cases.split(',') as Case[]
const wanted = (part: string) => values.only === undefined || values.only.split(',').includes(part)

if (!existsSync(join(values.model, 'config.json'))) {
  progress(`making ${values.model}`)
  const args = [join(here, 'torch_step.py'), '--make', values.model, '--layers', values.layers]
  const { status, stderr } = spawnSync(values.python, args, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`${values.python} did not make the model:\n${stderr}`)
}
const result = {
  machine: {
    cpu: cpus()[0]!.model,
    cores: cpus().length,
    backends: addon()
      .backends()
      .filter(({ available }) => available),
  },
  setting: {
    layers: Number(values.layers),
    sequences,
    length,
    threads: Number(values.threads),
    variant: values.variant,
  },
  timings: [] as Timing[],
  memory: [] as Memory[],
  profile: {} as Record<string, Profile['ops']>,
}
if (wanted('time')) {
  for (const which of cases) result.timings.push(await time(which))
  table(
    [
      'supervised',
      'loss ours / PyTorch',
      'gradient norm',
      'tokens/s ours',
      'tokens/s PyTorch',
      'ratio, median of pairs',
    ],
    result.timings.map((t) => [
      t.case,
      `${t.loss.ours.toFixed(4)} / ${t.loss.torch.toFixed(4)}`,
      `${t.gradNorm.ours.toFixed(3)} / ${t.gradNorm.torch.toFixed(3)}`,
      Math.round(tokens / t.median.ours),
      Math.round(tokens / t.median.torch),
      t.median.ratio.toFixed(2),
    ]),
  )
}
if (wanted('memory')) {
  for (const which of cases) result.memory.push(await memory(which))
  table(
    ['supervised', 'peak MB ours / PyTorch', 'ratio', 'minus state MB ours / PyTorch', 'ratio'],
    result.memory.map(({ case: which, state, peak }) => [
      which,
      `${megabytes(peak.ours)} / ${megabytes(peak.torch)}`,
      (peak.ours / peak.torch).toFixed(2),
      `${megabytes(peak.ours - state)} / ${megabytes(peak.torch - state)}`,
      ((peak.ours - state) / (peak.torch - state)).toFixed(2),
    ]),
  )
}
if (wanted('profile')) {
  for (const which of cases) {
    const ops = await profile(which)
    result.profile[which] = ops
    const total = ops.reduce((sum, op) => sum + op.seconds, 0)
    const share = (seconds: number) => `${((100 * seconds) / total).toFixed(1)} %`
    table(
      [`op (${which})`, 'calls per step', 'ms per step', 'share'],
      ops.map((op) => [op.op, op.calls, (op.seconds * 1000).toFixed(1), share(op.seconds)]),
    )
  }
}
if (values.out) {
  mkdirSync(dirname(values.out), { recursive: true })
  const before = existsSync(values.out) ? JSON.parse(readFileSync(values.out, 'utf8')) : {}
  const kept = Object.fromEntries(Object.entries(result).filter(([, part]) => Object.keys(part).length > 0))
  writeFileSync(values.out, `${JSON.stringify({ ...before, ...kept }, null, 1)}\n`)
}
