/**
 * The CUDA kernels, run on the CPU by cuda/host, through whole training steps: what the op tests cannot see is how the
 * ops follow one another. Runs where the CUDA backend was built, which CI always does.
 */
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { packageRoot } from '../../lib/native/load.ts'
import {
  agreesWithReference,
  distance,
  engineOptions,
  gradients,
  randomBatch,
  randomEngine,
  smallSpec,
  type TestBackend,
  weightSum,
} from './models.ts'
import { shapes } from './shapes.ts'

const built = existsSync(
  join(process.env.TUNESMITH_BACKEND_DIR ?? join(packageRoot(), 'build', 'Release'), 'libtunesmith_cuda-host.so'),
)
const step = { learningRate: 0.01, beta1: 0.9, beta2: 0.99, epsilon: 1e-8, momentum: 0.9, weightDecay: 0.1, step: 1 }

async function weightsAfterSteps(
  backend: TestBackend,
  steps: number,
): Promise<{ weights: number[]; losses: number[] }> {
  const engine = await randomEngine(engineOptions(backend, 'float32', { spec: smallSpec({ tiedEmbeddings: false }) }))
  const losses: number[] = []
  for (let number = 1; number <= steps; number++) {
    // Two micro-batches, one of them with rows that nobody supervises between those that are.
    const batches = [randomBatch([12, 1, 8]), randomBatch([30])]
    const sum = batches.reduce((total, batch) => total + weightSum(batch), 0)
    let loss = 0
    for (const [i, batch] of batches.entries()) loss += (await engine.accumulate(batch, sum, i === 0)).loss / sum
    losses.push(loss)
    await engine.optimizerStep({ ...step, step: number, maxGradNorm: 1 })
  }
  const weights: number[] = []
  for (const { name, shape } of engine.parameters()) {
    const count = shape.reduce((product, size) => product * size, 1)
    weights.push(...new Float64Array((await engine.read(name, 0, count, 'float64')).buffer))
  }
  engine.close()
  return { weights, losses }
}

describe('CUDA kernels on the CPU', () => {
  if (!built) {
    it('are built', function () {
      if (process.env.CI) throw new Error('libtunesmith_cuda-host.so is missing: CI builds the CUDA backend')
      console.log('      skipped: built without TUNESMITH_CUDA (a GPU is not needed, nvcc is)')
      this.skip()
    })
    return
  }
  for (const [name, changes] of Object.entries(shapes))
    for (const [compute, tolerance] of [
      ['float32', 2e-5],
      ['bfloat16', 0.08],
    ] as const)
      it(`${compute} agrees with the reference: ${name}`, () =>
        agreesWithReference('cuda-host', compute, tolerance, changes))

  it('train as the reference does, with clipping, over micro-batches and steps', async () => {
    const expected = await weightsAfterSteps('reference', 3)
    const found = await weightsAfterSteps('cuda-host', 3)
    for (const [i, loss] of found.losses.entries())
      assert.ok(Math.abs(loss - expected.losses[i]!) < 1e-5 * expected.losses[i]!, `${found.losses} ${expected.losses}`)
    assert.ok(found.losses[2]! < found.losses[0]!)
    assert.ok(distance(found.weights, expected.weights) < 1e-4, String(distance(found.weights, expected.weights)))
  })

  it('give the same bits whatever the order of their threads', async () => {
    const results: Float64Array[][] = []
    for (const order of ['forward', 'reverse', 'random:1', 'random:2']) {
      process.env.TUNESMITH_FIBER_ORDER = order
      for (const compute of ['float32', 'bfloat16'] as const) {
        const engine = await randomEngine(engineOptions('cuda-host', compute))
        const batch = randomBatch([12, 1, 8, 30])
        await engine.accumulate(batch, weightSum(batch), true)
        results.push([...(await gradients(engine)).values()])
        engine.close()
      }
    }
    delete process.env.TUNESMITH_FIBER_ORDER
    for (let i = 2; i < results.length; i++) assert.deepEqual(results[i], results[i % 2])
  })
})
