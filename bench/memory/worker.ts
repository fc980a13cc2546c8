/**
 * One run of bench/memory in a process of its own: prints a JSON line with the planned and the measured bytes.
 *
 *     node --import tsx worker.ts '{"shape":"135M","method":"lora",...}'
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { collate } from '../../lib/batch/collate.ts'
import { defaultChunkBytes } from '../../lib/checkpoint/safetensors.ts'
import type { NativeEngine } from '../../lib/native/addon.ts'
import { addon } from '../../lib/native/load.ts'
import { makeBatch, optimizerStep, weightSum } from '../train-step/step.ts'
import { engineOptions, type Run } from './shapes.ts'

const run = JSON.parse(process.argv[2]!) as Run
const steps = 2

function status(field: 'VmRSS' | 'VmHWM'): number {
  const text = readFileSync('/proc/self/status', 'utf8')
  return 1024 * Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(text)![1]!)
}

const options = engineOptions(run)
const { tokens, weights } = makeBatch('all', run.sequences, run.length, options.spec.vocabSize)
const batch = collate(
  tokens.map((ids, index) => ({
    ids: Int32Array.from(ids),
    weights: Float32Array.from(weights[index]!),
    source: { file: 'bench', line: 1 },
  })),
)
const random = Float32Array.from({ length: defaultChunkBytes / 4 }, () => 0.06 * (Math.random() - 0.5))
// The library is loaded and its code compiled; only what the engine takes is to come. 5 sets the peak to what is there.
addon().backends()
writeFileSync('/proc/self/clear_refs', '5')
const baseline = status('VmRSS')

const engine = new (addon().Engine)(options)
await load(engine)
if (options.adapters) await engine.initializeAdapters(2)
await engine.commit()
const loaded = status('VmHWM') - baseline
let loss = Number.NaN
for (let step = 1; step <= steps; step++) {
  const sum = weightSum(batch)
  loss = (await engine.accumulate(batch, sum, true)).loss / sum
  await engine.optimizerStep({ ...optimizerStep, step })
}
const measured = status('VmHWM') - baseline
process.stdout.write(
  `${JSON.stringify({ plan: engine.plan, unplanned: engine.unplanned, baseline, loaded, measured, loss })}\n`,
)
engine.close()

/** Chunks as large as those of a checkpoint, the same random ones over and over: drawing every weight takes minutes. */
async function load(engine: NativeEngine): Promise<void> {
  for (const { name, shape } of engine.parameters()) {
    if (name.includes('.lora_')) continue
    const count = shape.reduce((product, size) => product * size, 1)
    const values = name.endsWith('norm.weight') ? new Float32Array(count).fill(1) : random
    for (let offset = 0; offset < count; offset += values.length) {
      const size = Math.min(values.length, count - offset)
      await engine.write(name, offset, 'float32', new Uint8Array(values.buffer, 0, 4 * size))
    }
  }
}
