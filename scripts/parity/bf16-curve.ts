/**
 * Trains stories260K on dolly-15k twice from the same weights, in float32 and in bfloat16, and compares the losses step
 * by step: they must stay within 1 %.
 *
 *     npx tsx scripts/parity/bf16-curve.ts [--steps 200]
 */
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { Trainer } from '../../lib/index.ts'
import { dollyRows } from './dolly-rows.ts'

/** Per-step losses of a run of `steps` steps of eight conversations each, over one pass of the data. */
export async function lossCurve(folder: string, steps: number, precision: 'float32' | 'bfloat16'): Promise<number[]> {
  const root = new URL('../../', import.meta.url)
  const shared = (path: string) => fileURLToPath(new URL(`../shared/${path}`, root))
  const train = join(folder, `train-${precision}.jsonl`)
  writeFileSync(train, dollyRows(shared('data/dolly-15k/dolly-15k-messages.jsonl'), 8 * steps, 450))
  const trainer = new Trainer({
    model: shared('models/stories260K'),
    output: join(folder, precision),
    data: { train },
    chatTemplate: fileURLToPath(new URL('scripts/parity/template.jinja', root)),
    batchSize: 8,
    epochs: 1,
    learningRate: 5e-4,
    schedule: 'cosine',
    warmupSteps: 10,
    weightDecay: 0.1,
    device: 'cpu',
    threads: 1, // the model is too small to share
    precision,
  })
  const { history } = await trainer.fit()
  return history.steps.map(({ loss }) => loss)
}

/** The largest |a / b − 1| of two curves. */
export function largestDeviation(a: readonly number[], b: readonly number[]): number {
  if (a.length !== b.length) throw new Error(`${a.length} steps against ${b.length}`)
  return Math.max(...a.map((loss, step) => Math.abs(loss / b[step]! - 1)))
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({ options: { steps: { type: 'string', default: '200' } } })
  const folder = mkdtempSync(join(tmpdir(), 'tunesmith-bf16-'))
  const exact = await lossCurve(folder, Number(values.steps), 'float32')
  const rounded = await lossCurve(folder, Number(values.steps), 'bfloat16')
  console.log('| step | float32 | bfloat16 | relative |')
  console.log('| --- | --- | --- | --- |')
  for (let step = 0; step < exact.length; step++) {
    if (step % 20 !== 0 && step !== exact.length - 1) continue
    const [a, b] = [rounded[step]!, exact[step]!]
    console.log(`| ${step + 1} | ${b.toFixed(5)} | ${a.toFixed(5)} | ${((a / b - 1) * 100).toFixed(3)} % |`)
  }
  const deviation = largestDeviation(rounded, exact)
  console.log(`\nlargest deviation over ${exact.length} steps: ${(deviation * 100).toFixed(3)} %`)
  if (deviation > 0.01) process.exitCode = 1
}
