import assert from 'node:assert/strict'
import type { NativeEngine, OptimizerRule } from '../../lib/native/addon.ts'
import { addon } from '../../lib/native/load.ts'
import { distance, engineOptions, randomBatch, randomEngine, smallSpec, weightSum } from './models.ts'

/** Matrices of 64 × 64 = 4096 numbers are large enough for 8 bits, the small ones of k and v are not. */
const spec = smallSpec({ hiddenSize: 64, heads: 8, intermediateSize: 80, tiedEmbeddings: false, vocabSize: 101 })
const batch = randomBatch([12, 9, 20], 101)
const step = { learningRate: 0.01, beta1: 0.9, beta2: 0.99, epsilon: 1e-8, momentum: 0.9, weightDecay: 0.1, step: 1 }

async function read(engine: NativeEngine, name: string, shape: number[]): Promise<Float64Array> {
  const bytes = await engine.read(
    name,
    0,
    shape.reduce((product, size) => product * size, 1),
    'float64',
  )
  return new Float64Array(bytes.buffer)
}

/** The weights after so many steps on one batch. */
async function trained(backend: 'reference' | 'cpu', optimizer: OptimizerRule, steps = 1) {
  const engine = await randomEngine(engineOptions(backend, 'float32', { spec, optimizer }))
  for (let number = 1; number <= steps; number++) {
    await engine.accumulate(batch, weightSum(batch), true)
    await engine.optimizerStep({ ...step, step: number, maxGradNorm: 1 })
  }
  const weights = new Map<string, Float64Array>()
  for (const { name, shape } of engine.parameters()) weights.set(name, await read(engine, name, shape))
  const { loss } = await engine.evaluate(batch)
  engine.close()
  return { weights, loss }
}

const rules: OptimizerRule[] = ['adamw', 'adamw-8bit', 'lion', 'adafactor', 'muon', 'sgd', 'momentum']

describe('optimizers', () => {
  for (const rule of rules)
    it(`${rule}: lowers the loss, and the backends agree`, async () => {
      const before = await trained('cpu', rule, 0)
      const cpu = await trained('cpu', rule, 3)
      assert.ok(cpu.loss < before.loss, `${cpu.loss}, before ${before.loss}`)
      const reference = await trained('reference', rule, 1)
      for (const [name, weights] of (await trained('cpu', rule, 1)).weights) {
        const moved = distance(reference.weights.get(name)!, before.weights.get(name)!)
        const apart = distance(weights, reference.weights.get(name)!)
        // A sign turns where a gradient is nothing but rounding: k's bias in exact arithmetic, and some of Lion's.
        assert.ok(apart < 0.02 * moved, `${name}: ${apart} of ${moved}`)
      }
    })

  it('muon is for the matrices of layers, and AdamW for the rest', async () => {
    const { weights } = await trained('cpu', 'muon')
    for (const [name, adamw] of (await trained('cpu', 'adamw')).weights) {
      const hidden = /^layers\..*\.(q|k|v|o|gate|up|down)\.weight$/.test(name)
      if (!hidden) assert.deepEqual(weights.get(name), adamw, name)
      else assert.ok(distance(weights.get(name)!, adamw) > 1e-4, name)
    }
  })

  it('adamw-8bit leaves embeddings and small tensors to AdamW', async () => {
    const { weights } = await trained('cpu', 'adamw-8bit', 2)
    for (const [name, adamw] of (await trained('cpu', 'adamw', 2)).weights) {
      const eight = name === 'head.weight' || /^layers\..*\.(q|o|gate|up|down)\.weight$/.test(name)
      // The later step's gradients follow the weights of the earlier one, so only what moved first is the same.
      const apart = distance(weights.get(name)!, adamw)
      if (eight) assert.ok(apart > 1e-7, name)
      assert.ok(apart < 0.05, `${name}: ${apart}`)
    }
    const first = (await trained('cpu', 'adamw-8bit', 1)).weights
    for (const [name, adamw] of (await trained('cpu', 'adamw', 1)).weights)
      if (!/head|\.(q|o|gate|up|down)\.weight$/.test(name)) assert.deepEqual(first.get(name), adamw, name)
  })

  it('take the memory that they are for', () => {
    const large = smallSpec({ hiddenSize: 256, heads: 32, intermediateSize: 1024, vocabSize: 8, layers: 8 })
    const bytes = (optimizer: OptimizerRule) =>
      addon().plan(engineOptions('cpu', 'float32', { spec: large, optimizer }))
    const count = bytes('adamw').parameters / 4
    const perNumber = (optimizer: OptimizerRule) => bytes(optimizer).optimizer / count
    assert.ok(Math.abs(perNumber('adamw') - 8) < 0.01)
    assert.ok(perNumber('adamw-8bit') > 2 && perNumber('adamw-8bit') < 2.2, `${perNumber('adamw-8bit')}`)
    assert.ok(Math.abs(perNumber('lion') - 4) < 0.01)
    assert.ok(Math.abs(perNumber('momentum') - 4) < 0.01)
    assert.ok(Math.abs(perNumber('muon') - 4) < 0.1)
    assert.ok(perNumber('adafactor') < 0.1)
    assert.equal(perNumber('sgd'), 0)
    assert.ok(bytes('muon').scratch > bytes('adamw').scratch)
  })
})
