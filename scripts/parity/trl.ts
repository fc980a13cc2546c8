/**
 * Our side of the comparison with TRL: the runs that scripts/python/trl_parity.py has recorded, again, step by step.
 *
 *     npx tsx scripts/parity/trl.ts OUT [--device cpu|reference]     exits with 1 where a loss is off by 1e-5 or more
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { Trainer, type TrainerOptions } from '../../lib/index.ts'

interface Step {
  loss: number
  gradNorm: number
  learningRate: number
}

interface Recorded {
  settings: {
    learning_rate: number
    warmup_steps: number
    weight_decay: number
    conversationsPerForward: number
    accumulation: number
    steps: number
  }
  eager: Step[]
  sdpa: Step[]
}

const bound = 1e-5
const root = new URL('../../', import.meta.url)
const model = fileURLToPath(new URL('../shared/models/stories260K', root))
const template = fileURLToPath(new URL('scripts/parity/template.jinja', root))

async function repeat(out: string, variant: string, recorded: Recorded, device: 'cpu' | 'reference') {
  const { settings } = recorded
  const options: TrainerOptions = {
    model,
    output: join(out, `ours-${variant}`),
    data: { train: join(out, `${variant}.jsonl`) },
    chatTemplate: template,
    batchSize: settings.conversationsPerForward * settings.accumulation,
    // About as many micro-batches per step as TRL has, though not the same conversations in each.
    microBatchTokens: settings.accumulation > 1 ? 1024 : 8192,
    maxSteps: settings.steps,
    shuffle: false,
    learningRate: settings.learning_rate,
    schedule: 'linear',
    warmupSteps: settings.warmup_steps,
    weightDecay: settings.weight_decay,
    maxGradNorm: 1,
    precision: 'float32',
    device,
  }
  const { history, data } = await new Trainer(options).fit()
  if (data.dropped.length > 0) throw new Error(`rows were dropped: ${JSON.stringify(data.dropped)}`)
  return history.steps
}

/** The largest |a / b − 1|; both zero counts as equal. */
function worst(ours: readonly Step[], theirs: readonly Step[], key: keyof Step): number {
  if (ours.length !== theirs.length) throw new Error(`${ours.length} steps against ${theirs.length}`)
  return Math.max(
    ...ours.map((step, i) => (step[key] === theirs[i]![key] ? 0 : Math.abs(step[key] / theirs[i]![key] - 1))),
  )
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { device: { type: 'string', default: 'cpu' } },
})
const [out] = positionals
if (!out) throw new Error('usage: trl.ts OUT [--device cpu|reference]')
let failed = false
console.log('| variant | loss, first → last step | loss | gradient norm | learning rate | TRL against itself: loss |')
console.log('| --- | --- | --- | --- | --- | --- |')
for (const variant of ['plain', 'decay', 'accumulation']) {
  const recorded = JSON.parse(readFileSync(join(out, `${variant}.json`), 'utf8')) as Recorded
  const steps = await repeat(out, variant, recorded, values.device as 'cpu' | 'reference')
  const errors = (['loss', 'gradNorm', 'learningRate'] as const).map((key) => worst(steps, recorded.eager, key))
  failed ||= errors[0]! >= bound
  const course = `${steps[0]!.loss.toFixed(6)} → ${steps.at(-1)!.loss.toFixed(6)}`
  const cells = [...errors, worst(recorded.sdpa, recorded.eager, 'loss')].map((error) => error.toExponential(1))
  console.log(`| ${[variant, course, ...cells].join(' | ')} |`)
}
if (failed) {
  console.error(`a loss differs by ${bound} or more`)
  process.exitCode = 1
}
