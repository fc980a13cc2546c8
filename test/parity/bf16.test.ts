// bfloat16 must be right, not only fast: per gradient tensor the distance from float32 is at most 1.5 times that of
// PyTorch's autocast, which scripts/python/bf16_distance.py has recorded.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, it } from 'mocha'
import { collate } from '../../lib/batch/collate.ts'
import { readConfig } from '../../lib/checkpoint/families/index.ts'
import type { JsonObject } from '../../lib/checkpoint/json.ts'
import { loadParameters } from '../../lib/checkpoint/load.ts'
import { openCheckpoint } from '../../lib/checkpoint/open.ts'
import type { DecoderSpec, EngineOptions, MicroBatch, NativeEngine } from '../../lib/native/addon.ts'
import { addon } from '../../lib/native/load.ts'
import { itShared, shared } from '../shared.ts'
import { compareTensors, readGradients } from './engine.ts'
import { goldenPath } from './golden-file.ts'
import { hashedEngine } from './hashed.ts'

type Distances = Record<string, number>
interface Recorded {
  batches: number[][][]
  distance: { sdpa: Distances; eager: Distances }
}
const recorded = JSON.parse(readFileSync(goldenPath('bf16-distance.json'), 'utf8')) as {
  stories260K: Recorded
  midsize: Recorded & { config: JsonObject }
}

/** Every target carries loss. */
function microBatch(conversations: readonly number[][]): MicroBatch {
  const source = { file: 'golden', line: 1 }
  return collate(
    conversations.map((ids) => ({ ids: Int32Array.from(ids), weights: new Float32Array(ids.length).fill(1), source })),
  )
}

function engineOptions(compute: EngineOptions['compute']): Omit<EngineOptions, 'spec'> {
  const largest = { maxTokens: 256, maxSupervised: 256, maxSequences: 2, cacheTokens: 0 }
  return { backend: 'cpu', compute, threads: 2, training: true, optimizer: 'adamw', recompute: false, ...largest }
}

async function gradientsOf(engine: NativeEngine, batches: readonly MicroBatch[]) {
  try {
    const result: Map<string, Float64Array>[] = []
    for (const batch of batches) {
      await engine.accumulate(batch, batch.tokens.length - (batch.cuSeqlens.length - 1), true)
      result.push(await readGradients(engine))
    }
    return result
  } finally {
    engine.close()
  }
}

/** Root mean square over the batches of ‖bf16 − f32‖ / ‖f32‖, by native name. */
async function distances(
  make: (compute: EngineOptions['compute']) => Promise<NativeEngine>,
  conversations: number[][][],
) {
  const batches = conversations.map(microBatch)
  const exact = await gradientsOf(await make('float32'), batches)
  const rounded = await gradientsOf(await make('bfloat16'), batches)
  const squares = new Map<string, number>()
  for (const [index, theirs] of exact.entries()) {
    for (const { name, error } of compareTensors(rounded[index]!, theirs))
      squares.set(name, (squares.get(name) ?? 0) + error ** 2 / batches.length)
  }
  return new Map([...squares].map(([name, square]) => [name, Math.sqrt(square)]))
}

function check(ours: ReadonlyMap<string, number>, spec: DecoderSpec, config: JsonObject, torch: Distances): void {
  const { family } = readConfig(config, 'config')
  const sources = family.parameters(spec)
  assert.equal(sources.length, Object.keys(torch).length)
  for (const { name, tensor } of sources) {
    const own = ours.get(name)!
    // Zero would mean that nothing was rounded, i.e. that the engine computed in float32.
    assert.ok(own > 1e-4, `${tensor}: ${own}`)
    const ratio = own / torch[tensor]!
    assert.ok(ratio <= 1.5, `${tensor}: ${own.toFixed(4)} from float32, ${ratio.toFixed(2)} times autocast`)
  }
}

describe('bfloat16 gradients against autocast', function () {
  this.timeout(300_000)

  itShared('stories260K', async () => {
    const { batches, distance } = recorded.stories260K
    const checkpoint = await openCheckpoint(shared('models/stories260K'))
    const make = async (compute: EngineOptions['compute']) => {
      const engine = new (addon().Engine)({ ...engineOptions(compute), spec: checkpoint.spec })
      await loadParameters(checkpoint, engine)
      return engine
    }
    check(await distances(make, batches), checkpoint.spec, checkpoint.config.value, distance.sdpa)
  })

  it('a random model with heads of 64', async () => {
    const { batches, distance, config } = recorded.midsize
    const { spec } = readConfig(config, 'config')
    check(
      await distances((compute) => hashedEngine(config, engineOptions(compute)), batches),
      spec,
      config,
      distance.sdpa,
    )
  })
})
