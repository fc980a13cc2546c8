/** One run of TRL as scripts/python/trl_parity.py has recorded it, and the same run with ours. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Trainer } from '../../lib/index.ts'

export interface Step {
  loss: number
  gradNorm: number
  learningRate: number
}

export interface Recorded {
  settings: {
    learning_rate: number
    warmup_steps: number
    weight_decay: number
    conversationsPerForward: number
    accumulation: number
    steps: number
  }
  /** Lines of dolly-15k, from 1, in the order of training. */
  lines: number[]
  /** With eager attention. */
  eager: Step[]
}

const root = new URL('../../', import.meta.url)
const shared = (path: string) => fileURLToPath(new URL(`../shared/${path}`, root))

/** Our run in float32: same weights, conversations, order and hyperparameters. `folder` takes its files. */
export async function repeat(folder: string, recorded: Recorded, device: 'cpu' | 'reference'): Promise<Step[]> {
  const { settings } = recorded
  mkdirSync(folder, { recursive: true })
  const train = join(folder, 'train.jsonl')
  const rows = readFileSync(shared('data/dolly-15k/dolly-15k-messages.jsonl'), 'utf8').split('\n')
  writeFileSync(train, recorded.lines.map((line) => `${rows[line - 1]}\n`).join(''))
  const trainer = new Trainer({
    model: shared('models/stories260K'),
    output: join(folder, 'checkpoint'),
    data: { train },
    chatTemplate: fileURLToPath(new URL('scripts/parity/template.jinja', root)),
    batchSize: settings.conversationsPerForward * settings.accumulation,
    // About as many micro-batches per step as TRL has, though not the same conversations in each.
    microBatchTokens: settings.accumulation > 1 ? 1024 : 8192,
    maxSteps: settings.steps,
    shuffle: false,
    threads: 1, // the model is too small to share
    learningRate: settings.learning_rate,
    schedule: 'linear',
    warmupSteps: settings.warmup_steps,
    weightDecay: settings.weight_decay,
    maxGradNorm: 1,
    precision: 'float32',
    device,
  })
  const { history, data } = await trainer.fit()
  if (data.dropped.length > 0) throw new Error(`rows were dropped: ${JSON.stringify(data.dropped)}`)
  return history.steps
}

/** The largest |a / b − 1| over the steps; both zero counts as equal. */
export function worst(ours: readonly Step[], theirs: readonly Step[], key: keyof Step): number {
  if (ours.length !== theirs.length) throw new Error(`${ours.length} steps against ${theirs.length}`)
  const errors = ours.map((step, index) => {
    const other = theirs[index]![key]
    return step[key] === other ? 0 : Math.abs(step[key] / other - 1)
  })
  return Math.max(...errors)
}
