// How conversations are spread over micro-batches must not change the update: 1×N and N×1 accumulation, packed and
// alone, with activation recomputation and without. A mean of micro-batch means, the classic mistake, must be caught.
import assert from 'node:assert/strict'
import { describe, it } from 'mocha'
import { collate } from '../../lib/batch/collate.ts'
import { exampleSet } from '../../lib/batch/example-set.ts'
import { buildStep } from '../../lib/batch/steps.ts'
import type { Example } from '../../lib/data/conversation.ts'
import type { EngineOptions, MicroBatch, NativeEngine } from '../../lib/native/addon.ts'
import { compareTensors, exactSettings, load, readGradients, readParameters, type Setting } from './engine.ts'
import { checkpointOf, readGolden } from './golden-file.ts'

const bound = 5e-5
const name = 'llama3-rope'
const golden = readGolden(name)
const examples = split(golden.batch)

/** The conversations of a micro-batch, each by itself. The weight of token t + 1 stands at target t. */
function split(batch: MicroBatch): Example[] {
  const { cuSeqlens, tokens, weights } = batch
  return Array.from(cuSeqlens.subarray(1), (end, index) => {
    const begin = cuSeqlens[index]!
    const own = new Float32Array(end - begin)
    own.set(weights.subarray(begin, end - 1), 1)
    return { ids: tokens.slice(begin, end), weights: own, source: { file: 'golden', line: index + 1 } }
  })
}

async function withEngine<T>(options: Partial<EngineOptions>, use: (engine: NativeEngine) => Promise<T>): Promise<T> {
  const { engine } = await load(checkpointOf(name), golden.batch, options)
  try {
    return await use(engine)
  } finally {
    engine.close()
  }
}

async function accumulate(engine: NativeEngine, batches: readonly MicroBatch[], weightSum: number): Promise<void> {
  for (const [index, batch] of batches.entries()) await engine.accumulate(batch, weightSum, index === 0)
}

/** Gradients of the micro-batches and the parameters after one SGD step of rate 0.1. */
async function update(setting: Partial<EngineOptions>, batches: readonly MicroBatch[]) {
  return withEngine({ ...setting, optimizer: 'sgd' }, async (engine) => {
    const before = await readParameters(engine)
    await accumulate(engine, batches, golden.weightSum)
    const gradients = await readGradients(engine)
    const step = { learningRate: 0.1, beta1: 0, beta2: 0, epsilon: 1e-8, weightDecay: 0, step: 1 }
    const { applied } = await engine.optimizerStep({ ...step, maxGradNorm: Number.POSITIVE_INFINITY })
    assert.ok(applied)
    const after = await readParameters(engine)
    const change = [...after].map(([key, values]) => [key, values.map((x, i) => x - before.get(key)![i]!)] as const)
    return { gradients, after, change: new Map(change) }
  })
}

function worst(a: Parameters<typeof compareTensors>[0], b: Parameters<typeof compareTensors>[1]) {
  return compareTensors(a, b)[0]!
}

function assertSame(a: Awaited<ReturnType<typeof update>>, b: Awaited<ReturnType<typeof update>>): void {
  for (const key of ['gradients', 'after'] as const) {
    const { name: tensor, error } = worst(a[key], b[key])
    assert.ok(error < bound, `${key}: ${tensor} differs by ${error.toExponential(2)}`)
  }
  // Parameter minus parameter: what is left of float32 after the subtraction, so a hundred times looser.
  const { name: tensor, error } = worst(a.change, b.change)
  assert.ok(error < 100 * bound, `change: ${tensor} differs by ${error.toExponential(2)}`)
}

const layouts: [string, readonly MicroBatch[]][] = [
  ['every conversation alone', examples.map((example) => collate([example]))],
  ['in the opposite order', [collate([...examples].reverse())]],
  ['in two uneven parts', [collate(examples.slice(0, 4)), collate(examples.slice(4))]],
  ['as packed into micro-batches of 45 tokens', packed(45)],
  ['as packed into micro-batches of 20 tokens', packed(20)],
]

function packed(capacity: number): MicroBatch[] {
  const set = exampleSet(examples.map((example) => [example]))
  const step = buildStep(
    set,
    Uint32Array.from(examples, (_, index) => index),
    capacity,
  )
  assert.equal(step.weightSum, golden.weightSum)
  return step.microBatches
}

describe('gradient accumulation', () => {
  for (const setting of exactSettings) describeSetting(setting)
})

function describeSetting(setting: Setting): void {
  describe(`${setting.backend} in ${setting.compute}`, () => {
    let whole: Awaited<ReturnType<typeof update>>

    it('is repeatable to the bit', async () => {
      whole = await update(setting, [golden.batch])
      assert.deepEqual(await update(setting, [golden.batch]), whole)
    })

    for (const [title, batches] of layouts) {
      it(`gives the update of one micro-batch: ${title}`, async () => {
        assertSame(await update(setting, batches), whole)
      })
    }

    it('overwrites what the step before has left', async () => {
      await withEngine(setting, async (engine) => {
        await accumulate(engine, [golden.batch, golden.batch], golden.weightSum)
        await accumulate(engine, [golden.batch], golden.weightSum)
        assert.deepEqual(await readGradients(engine), whole.gradients)
      })
    })

    it('is told from a mean of micro-batch means', async () => {
      const batches = examples.map((example) => collate([example])).filter(({ weights }) => sum(weights) > 0)
      await withEngine(setting, async (engine) => {
        for (const [index, batch] of batches.entries())
          await engine.accumulate(batch, sum(batch.weights) * batches.length, index === 0)
        const errors = compareTensors(await readGradients(engine), whole.gradients)
        // Not one tensor may pass: the comparison above would see the mistake wherever it looked.
        for (const { name: tensor, error } of errors) assert.ok(error > 100 * bound, `${tensor}: only ${error}`)
      })
    })

    it('gives the same bits with activation recomputation', async () => {
      const recomputed = await update({ ...setting, recompute: true }, [golden.batch])
      assert.deepEqual(recomputed.gradients, whole.gradients)
    })
  })
}

function sum(values: Float32Array): number {
  return values.reduce((total, value) => total + value, 0)
}
