/**
 * Our side of the dolly-15k comparison: the run of scripts/python/trl_dolly.py again, and its held-out loss beside TRL's.
 *
 *     npx tsx scripts/parity/dolly.ts OUT [--device cpu|reference]
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { Trainer } from '../../lib/index.ts'

interface Recorded {
  before: number
  after: number
  steps: number
  batch: number
  epochs: number
  learningRate: number
  warmup: number
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { device: { type: 'string', default: 'cpu' } },
})
const [out] = positionals
if (!out) throw new Error('usage: dolly.ts OUT [--device cpu|reference]')
const root = new URL('../../', import.meta.url)
const trl = JSON.parse(readFileSync(join(out, 'trl.json'), 'utf8')) as Recorded
const after: Record<string, number> = {}
for (const precision of ['float32', 'bfloat16'] as const) {
  if (precision === 'bfloat16' && values.device !== 'cpu') continue
  const { history, steps, data } = await new Trainer({
    model: fileURLToPath(new URL('../shared/models/stories260K', root)),
    output: join(out, `ours-${precision}`),
    data: { train: join(out, 'train.jsonl'), eval: join(out, 'eval.jsonl') },
    chatTemplate: fileURLToPath(new URL('scripts/parity/template.jinja', root)),
    batchSize: trl.batch,
    epochs: trl.epochs,
    shuffle: false,
    threads: 1, // the model is too small to share
    learningRate: trl.learningRate,
    schedule: 'cosine',
    warmupSteps: trl.warmup,
    device: values.device as 'cpu' | 'reference',
    precision,
  }).fit()
  if (steps !== trl.steps) throw new Error(`${steps} steps, but TRL took ${trl.steps}`)
  if (data.dropped.length > 0) throw new Error(`rows were dropped: ${JSON.stringify(data.dropped)}`)
  after[precision] = history.evals.at(-1)!.loss
}
console.log('| held-out loss, nats per token | before | after |')
console.log('| --- | --- | --- |')
console.log(`| TRL, float32 | ${trl.before.toFixed(6)} | ${trl.after.toFixed(6)} |`)
for (const [precision, loss] of Object.entries(after)) {
  console.log(`| Tunesmith, ${precision} |  | ${loss.toFixed(6)} |`)
  if (loss >= trl.before || Math.abs(loss / trl.after - 1) > (precision === 'float32' ? 1e-4 : 1e-2))
    process.exitCode = 1
}
