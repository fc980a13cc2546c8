import assert from 'node:assert/strict'
import type { EngineOptions, NativeEngine } from '../../lib/native/addon.ts'
import { addon } from '../../lib/native/load.ts'
import { distance, engineOptions, gradients, randomBatch, randomEngine, smallSpec, weightSum } from './models.ts'
import { shapes } from './shapes.ts'

/** Which parameters of the three-layer model train. */
const choices: Record<string, RegExp> = {
  'the head alone': /^head\./,
  'the final norm alone': /^final_norm/,
  'the last layer': /^layers\.2\./,
  'an MLP in the middle': /^layers\.1\.mlp\./,
  'a gate alone': /^layers\.1\.mlp\.gate\.weight/,
  'a down projection alone': /^layers\.0\.mlp\.down\./,
  'an output projection of the last layer alone': /^layers\.2\.attention\.o\./,
  'norms and biases': /norm|bias/,
  'one norm': /^layers\.1\.attention_norm/,
  'q and v': /\.attention\.[qv]\.weight/,
  'biases of k': /\.k\.bias/,
  'norms of q': /\.q_norm\./,
  'norms behind one block': /^layers\.1\.mlp_post_norm/,
  positions: /^position_embedding/,
  'the bias of the head': /^head\.bias/,
  'embeddings and head': /^(embedding|head)\./,
  'all but embeddings': /^(?!embedding)/,
}

const otherShapes = [
  'OLMo 2: norms behind the blocks and over whole q and k',
  'Gemma 3: two rotary tables',
  'GPT-2: LayerNorm, learned positions, no gates',
  'Phi: parallel residual, a bias on the head',
  'parallel residual of RMSNorms with scales and caps',
]

const full = { tiedEmbeddings: false, attentionBias: true, attentionOutputBias: true, mlpBias: true }
const batch = randomBatch([12, 1, 8])
const step = { learningRate: 0.01, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0.1 }

async function values(engine: NativeEngine): Promise<Map<string, Float64Array>> {
  const result = new Map<string, Float64Array>()
  for (const { name, shape } of engine.parameters()) {
    const count = shape.reduce((product, size) => product * size, 1)
    result.set(name, new Float64Array((await engine.read(name, 0, count, 'float64')).buffer))
  }
  return result
}

/** Values after two steps. */
async function train(options: EngineOptions) {
  const engine = await randomEngine(options)
  for (const number of [1, 2]) {
    await engine.accumulate(batch, weightSum(batch), true)
    await engine.optimizerStep({ ...step, maxGradNorm: Number.POSITIVE_INFINITY, step: number })
  }
  const result = { values: await values(engine), plan: engine.plan }
  engine.close()
  return result
}

describe('trainable parameters', () => {
  for (const [backend, compute] of [
    ['reference', 'float64'],
    ['cpu', 'float32'],
    ['cpu', 'bfloat16'],
  ] as const) {
    const specs = {
      untied: full,
      tied: { ...full, tiedEmbeddings: true },
      ...Object.fromEntries(otherShapes.map((name) => [name, shapes[name]!])),
    }
    for (const [name, changes] of Object.entries(specs)) {
      it(`have the gradients of a full run to the bit, on ${backend} in ${compute}: ${name}`, async () => {
        const spec = smallSpec(changes)
        const options = engineOptions(backend, compute, { spec })
        const names = addonParameters(options)
        for (const recompute of [false, true]) {
          const whole = await stepGradients({ ...options, recompute })
          for (const [choice, pattern] of Object.entries(choices)) {
            const chosen = names.filter((name) => pattern.test(name))
            if (chosen.length === 0) continue
            const some = { ...options, recompute, trainable: [{ names: chosen }] }
            const found = await stepGradients(some)
            assert.deepEqual([...found.keys()].sort(), [...chosen].sort(), choice)
            for (const [name, gradient] of found) assert.deepEqual(gradient, whole.get(name), `${choice}: ${name}`)
          }
        }
      })
    }
  }

  it('change as in a full run with the others at rate 0, and the others keep every bit', async () => {
    const spec = smallSpec(full)
    for (const backend of ['reference', 'cpu'] as const) {
      const options = engineOptions(backend, 'float32', { spec })
      const names = addonParameters(options)
      const before = await randomEngine(options)
      const initial = await values(before)
      before.close()
      for (const pattern of Object.values(choices)) {
        const chosen = names.filter((name) => pattern.test(name))
        if (chosen.length === 0) continue
        const rest = names.filter((name) => !pattern.test(name))
        const still = { names: rest, learningRateScale: 0 }
        const whole = await train({ ...options, trainable: [{ names: chosen }, still] })
        const part = await train({ ...options, trainable: [{ names: chosen }] })
        for (const name of chosen) {
          assert.deepEqual(part.values.get(name), whole.values.get(name), name)
          assert.ok(distance(part.values.get(name)!, initial.get(name)!) > 1e-6, `${name} has not moved`)
        }
        for (const name of rest) assert.deepEqual(part.values.get(name), initial.get(name), name)
        assert.ok(part.plan.gradients < whole.plan.gradients && part.plan.optimizer < whole.plan.optimizer)
      }
    }
  })

  it('take memory for themselves alone', () => {
    const spec = smallSpec({ hiddenSize: 128, intermediateSize: 512, vocabSize: 1000, layers: 6 })
    const options = engineOptions('cpu', 'float32', { spec })
    const all = addon().plan(options)
    const names = addonParameters(options).filter((name) => name.startsWith('layers.5.mlp.'))
    const some = addon().plan({ ...options, trainable: [{ names }] })
    const bytes = 3 * 128 * 512 * 4
    assert.ok(some.gradients >= bytes && some.gradients < bytes + 1024, `${some.gradients}`)
    assert.ok(some.optimizer >= 2 * bytes && some.optimizer < 2 * bytes + 1024, `${some.optimizer}`)
    assert.equal(some.parameters, all.parameters)
    // Five layers share the activations that six had.
    assert.ok(some.activations < all.activations / 2, `${some.activations} of ${all.activations}`)
  })

  it('follow the rate and the decay of their group', async () => {
    const options = engineOptions('cpu', 'float32')
    const names = addonParameters(options)
    const matrices = names.filter((name) => /attention\.[qkv]|down/.test(name))
    const others = names.filter((name) => !matrices.includes(name))
    const engine = await randomEngine({
      ...options,
      optimizer: 'sgd',
      trainable: [
        { names: matrices, learningRateScale: 0.5, weightDecay: 0.25 },
        { names: others, weightDecay: 0.125 },
      ],
    })
    await engine.accumulate(batch, weightSum(batch), true)
    const grads = await gradients(engine)
    const before = await values(engine)
    await engine.optimizerStep({ ...step, maxGradNorm: Number.POSITIVE_INFINITY, step: 1 })
    for (const [name, after] of await values(engine)) {
      const [rate, decay] = matrices.includes(name) ? [0.005, 0.25] : [0.01, 0.125]
      const expected = before.get(name)!.map((w, i) => w - rate * (grads.get(name)![i]! + decay * w))
      assert.ok(distance(after, expected) < 1e-6, name)
    }
    engine.close()
  })

  it('may be some rows of embedding and head, with the gradients that these have in a full run', async () => {
    const [first, count] = [40, 7]
    for (const tiedEmbeddings of [false, true])
      for (const [backend, compute] of [
        ['reference', 'float64'],
        ['cpu', 'float32'],
        ['cpu', 'bfloat16'],
      ] as const) {
        const spec = smallSpec({ ...full, tiedEmbeddings, headBias: !tiedEmbeddings })
        const options = engineOptions(backend, compute, { spec })
        const names = tiedEmbeddings ? ['embedding.weight'] : ['embedding.weight', 'head.weight', 'head.bias']
        const whole = await stepGradients(options)
        const trainable = [{ names, rows: Int32Array.of(first, count), weightDecay: 0.1 }]
        const engine = await randomEngine({ ...options, trainable })
        const before = await values(engine)
        await engine.accumulate(batch, 2 * weightSum(batch), true)
        await engine.accumulate(randomBatch([9, 5]), 2 * weightSum(batch), false)
        for (const name of names) {
          const width = name === 'head.bias' ? 1 : spec.hiddenSize
          const bytes = await engine.readGradient(name, 0, count * width, 'float64')
          const expected = whole.get(name)!.subarray(first * width, (first + count) * width)
          assert.deepEqual(new Float64Array(bytes.buffer), Float64Array.from(expected), `${name} on ${backend}`)
          assert.ok(expected.some((value) => value !== 0))
          await assert.rejects(engine.readGradient(name, 0, (count + 1) * width, 'float64'), {
            code: 'ERR_INVALID_ARGUMENT',
          })
        }
        await engine.optimizerStep({ ...step, maxGradNorm: Number.POSITIVE_INFINITY, step: 1 })
        for (const [name, after] of await values(engine)) {
          const width = name === 'head.bias' ? 1 : spec.hiddenSize
          const start = before.get(name)!
          for (const [i, value] of after.entries()) {
            const trains = names.includes(name) && i >= first * width && i < (first + count) * width
            if (!trains) assert.equal(value, start[i], `${name}[${i}]`)
            else assert.notEqual(value, start[i], `${name}[${i}]`)
          }
        }
        assert.ok(engine.plan.gradients < 4096)
        engine.close()
      }
    const options = engineOptions('cpu', 'float32')
    const make = (name: string, rows: number[]) => () =>
      addon().plan({ ...options, trainable: [{ names: [name], rows: Int32Array.from(rows) }] })
    assert.throws(make('embedding.weight', [60, 2]), { code: 'ERR_INVALID_ARGUMENT', message: /outside the 61/ })
    assert.throws(make('layers.0.mlp.up.weight', [0, 2]), { code: 'ERR_INVALID_ARGUMENT', message: /in part/ })
  })

  it('are named and named once', () => {
    const options = engineOptions('cpu', 'float32')
    const make = (...groups: string[][]) => addon().plan({ ...options, trainable: groups.map((names) => ({ names })) })
    assert.throws(() => make(['layers.9.mlp.up.weight']), { code: 'ERR_UNKNOWN_PARAMETER' })
    assert.throws(() => make(['final_norm.weight'], ['final_norm.weight']), { code: 'ERR_INVALID_ARGUMENT' })
    assert.throws(() => make([]), { code: 'ERR_INVALID_ARGUMENT', message: /nothing would be trained/ })
  })
})

function addonParameters(options: EngineOptions): string[] {
  const engine = new (addon().Engine)(options)
  const names = engine.parameters().map(({ name }) => name)
  engine.close()
  return names
}

/** Gradients of a step of two micro-batches. */
async function stepGradients(options: EngineOptions): Promise<Map<string, Float64Array>> {
  const engine = await randomEngine(options)
  await engine.accumulate(batch, 2 * weightSum(batch), true)
  await engine.accumulate(randomBatch([9, 5]), 2 * weightSum(batch), false)
  const result = await gradients(engine)
  engine.close()
  return result
}
