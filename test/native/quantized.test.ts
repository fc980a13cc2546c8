/** QLoRA's frozen base in the engine: against the same model with its dequantised weights, and how it is filled and read. */
import assert from 'node:assert/strict'
import type { AdapterOptions, ComputeType, EngineOptions, NativeEngine } from '../../lib/native/addon.ts'
import { addon } from '../../lib/native/load.ts'
import { distance, engineOptions, gradients, randomBatch, smallSpec, weightSum } from './models.ts'

const projections = ['attention.q', 'attention.k', 'attention.v', 'attention.o', 'mlp.gate', 'mlp.up', 'mlp.down']
const layers = 3
const modules = Array.from({ length: layers }, (_, layer) =>
  projections.map((name) => ({
    name: `layers.${layer}.${name}`,
    parts: [`layers.${layer}.${name}`],
    rank: 2,
    scale: 0.8,
  })),
).flat()
const lora: AdapterOptions = { modules, dora: false, dropout: 0 }
const spec = smallSpec({ layers, attentionBias: true, mlpBias: true, tiedEmbeddings: false })
const nf4 = { quantization: 'nf4', doubleQuantization: true } as const
const batch = randomBatch([12, 1, 8])
const isQuantized = (name: string) => /^layers\..*(attention|mlp)\.\w+\.weight$/.test(name)

function countOf(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1)
}

async function read(engine: NativeEngine, name: string, count: number, offset = 0): Promise<Float64Array> {
  return new Float64Array((await engine.read(name, offset, count, 'float64')).buffer)
}

/** A random model, its adapters away from their start. */
async function randomEngine(options: EngineOptions): Promise<NativeEngine> {
  const engine = new (addon().Engine)(options)
  await engine.initialize(7, 0.3)
  if (options.adapters) await engine.initializeAdapters(11)
  for (const { name, shape } of engine.parameters()) {
    if (!name.endsWith('.lora_b')) continue
    const values = Float64Array.from({ length: countOf(shape) }, (_, i) => 0.3 * Math.sin(i * 1.7 + 1))
    await engine.write(name, 0, 'float64', new Uint8Array(values.buffer))
  }
  await engine.commit()
  return engine
}

/** The same model in float, with the weights that the quantised one has. */
async function dequantized(from: NativeEngine, options: EngineOptions): Promise<NativeEngine> {
  const { quantization: _, doubleQuantization: __, ...plain } = options
  const engine = new (addon().Engine)(plain)
  for (const { name, shape } of from.parameters())
    await engine.write(name, 0, 'float64', new Uint8Array((await read(from, name, countOf(shape))).buffer))
  await engine.commit()
  return engine
}

const cases: ['reference' | 'cpu', ComputeType, number][] = [
  ['reference', 'float64', 1e-12],
  ['cpu', 'float32', 1e-6],
  ['cpu', 'bfloat16', 0],
]

describe('quantised base', () => {
  for (const [backend, compute, tolerance] of cases) {
    for (const doubleQuantization of [true, false]) {
      it(`trains adapters as its dequantised weights do, on ${backend} in ${compute}, ${doubleQuantization ? 'doubled' : 'plain'}`, async () => {
        const adapters = { ...lora, dora: doubleQuantization }
        for (const recompute of [false, true]) {
          const options = engineOptions(backend, compute, { spec, adapters, recompute, ...nf4, doubleQuantization })
          const engine = await randomEngine(options)
          const plain = await dequantized(engine, options)
          const sums = await engine.accumulate(batch, weightSum(batch), true)
          const expected = await plain.accumulate(batch, weightSum(batch), true)
          assert.ok(Math.abs(sums.loss / expected.loss - 1) <= tolerance, `loss ${sums.loss}, not ${expected.loss}`)
          const found = await gradients(engine)
          for (const [name, gradient] of await gradients(plain)) {
            assert.ok(name.includes('.lora_') && gradient.some((value) => value !== 0))
            const far = distance(found.get(name)!, gradient)
            assert.ok(far <= tolerance, `${name}: ${far}`)
          }
          assert.equal(engine.unplanned, 0)
          engine.close()
          plain.close()
        }
      })
    }

    it(`has the logits of its dequantised weights, cached or not, on ${backend} in ${compute}`, async () => {
      const options = engineOptions(backend, compute, { spec, training: false, cacheTokens: 32, ...nf4 })
      const engine = await randomEngine(options)
      const plain = await dequantized(engine, options)
      assert.ok(distance(await engine.logits(batch), await plain.logits(batch)) <= tolerance)
      const prompt = batch.tokens.subarray(0, 12)
      assert.ok(distance(await engine.extend(prompt, 0), await plain.extend(prompt, 0)) <= tolerance)
      assert.equal(engine.unplanned, 0)
      engine.close()
      plain.close()
    })
  }

  it('lets biases, norms, embedding and head train', async () => {
    const options = engineOptions('cpu', 'float32', { spec, ...nf4 })
    const probe = addon().plan({ ...options, training: false })
    assert.ok(probe.quantized > 0)
    const whole = new (addon().Engine)({ ...options, training: false })
    const names = whole
      .parameters()
      .map(({ name }) => name)
      .filter((name) => !isQuantized(name))
    whole.close()
    const engine = await randomEngine({ ...options, trainable: [{ names }] })
    const plain = await dequantized(engine, { ...options, trainable: [{ names }] })
    await engine.accumulate(batch, weightSum(batch), true)
    await plain.accumulate(batch, weightSum(batch), true)
    const found = await gradients(engine)
    const expected = await gradients(plain)
    assert.deepEqual([...found.keys()].sort(), [...names].sort())
    // Key biases move every score of a row alike and have no gradient but rounding.
    for (const [name, gradient] of expected)
      if (!name.endsWith('attention.k.bias')) assert.ok(distance(found.get(name)!, gradient) <= 1e-5, name)
    engine.close()
    plain.close()
  })

  it('is the same however its values arrive, and on both backends', async () => {
    const make = (backend: 'reference' | 'cpu') =>
      new (addon().Engine)(engineOptions(backend, 'float32', { spec, training: false, ...nf4 }))
    const name = 'layers.1.mlp.gate.weight'
    const count = 40 * 24
    const values = Float32Array.from({ length: count }, (_, i) => Math.sin(i * i) * (1 + (i % 7)))
    const bytes = (first: number, last: number) => new Uint8Array(values.slice(first, last).buffer)
    const whole = make('reference')
    await whole.write(name, 0, 'float32', bytes(0, count))
    const expected = await read(whole, name, count)
    assert.ok(distance(expected, values) < 0.15 && distance(expected, values) > 0.01)
    const pieces = [
      [0, 64, 640, count],
      [0, 1, 2, 63, 65, 200, 201, 959, count],
    ]
    for (const ends of pieces) {
      const engine = make('cpu')
      const parts = ends.slice(1).map((end, i) => [ends[i]!, end] as const)
      for (const [first, last] of parts.reverse()) await engine.write(name, first, 'float32', bytes(first, last))
      assert.deepEqual(await read(engine, name, count), expected)
      assert.deepEqual(await read(engine, name, 100, 70), expected.slice(70, 170))
      // A second time over the first.
      await engine.write(name, 0, 'float32', bytes(0, count))
      assert.deepEqual(await read(engine, name, count), expected)
      engine.close()
    }
    whole.close()
  })

  it('refuses what cannot be', async () => {
    const options = engineOptions('cpu', 'float32', { spec, training: false, ...nf4 })
    const name = 'layers.0.attention.o.weight'
    const engine = await randomEngine(options)
    await engine.write(name, 64, 'float32', new Uint8Array(256))
    await assert.rejects(engine.commit(), { code: 'ERR_INVALID_ARGUMENT', message: new RegExp(`${name}.*in part`) })
    const values = new Float32Array(128)
    values[77] = Number.NaN
    await assert.rejects(engine.write(name, 0, 'float32', new Uint8Array(values.buffer)), {
      code: 'ERR_INVALID_WEIGHTS',
      message: new RegExp(`${name}: element 77 is -?nan`),
    })
    engine.close()
    const training = { ...options, training: true }
    assert.throws(() => addon().plan(training), { code: 'ERR_INVALID_ARGUMENT', message: /quantised and cannot train/ })
    const trainable = [{ names: [name] }]
    assert.throws(() => addon().plan({ ...training, trainable }), { message: new RegExp(`${name} is quantised`) })
    const merging = await randomEngine({ ...options, adapters: lora })
    await assert.rejects(merging.mergeAdapters(), { code: 'ERR_INVALID_ARGUMENT', message: /quantised/ })
    merging.close()
  })

  it('leaves the same values where they are kept in float, into which adapters merge', async () => {
    for (const doubleQuantization of [true, false]) {
      const common = { spec, training: false, adapters: lora, ...nf4, doubleQuantization }
      const engine = await randomEngine(engineOptions('cpu', 'float32', common))
      const kept = await randomEngine(engineOptions('cpu', 'float32', { ...common, dequantized: true }))
      assert.equal(kept.plan.quantized, 0)
      for (const { name, shape } of engine.parameters())
        assert.deepEqual(await read(kept, name, countOf(shape)), await read(engine, name, countOf(shape)))
      const adapted = await engine.logits(batch)
      await kept.mergeAdapters()
      assert.ok(distance(await kept.logits(batch), adapted) < 1e-6)
      engine.close()
      kept.close()
    }
  })

  it('takes 4.127 bits per weight doubled, 4.5 plain', () => {
    const large = smallSpec({ layers: 2, hiddenSize: 512, intermediateSize: 1024, heads: 8, kvHeads: 8, headDim: 64 })
    const options = engineOptions('cpu', 'float32', { spec: large, training: false, ...nf4 })
    const weights = 2 * (4 * 512 * 512 + 3 * 512 * 1024)
    const bits = (plan: { quantized: number }) => (8 * plan.quantized) / weights
    const close = (actual: number, expected: number) => assert.ok(Math.abs(actual / expected - 1) < 0.005, `${actual}`)
    close(bits(addon().plan(options)), 4 + 8 / 64 + 32 / (64 * 256))
    close(bits(addon().plan({ ...options, doubleQuantization: false })), 4.5)
    const { quantized, parameters } = addon().plan(options)
    const { parameters: all, quantized: none } = addon().plan(
      engineOptions('cpu', 'float32', { spec: large, training: false }),
    )
    assert.equal(none, 0)
    assert.equal(all - parameters, 4 * weights)
    assert.ok(quantized > 0)
  })
})
