/** Low-rank adapters in the decoder: gradients against finite differences, backends against each other, and what stays. */
import assert from 'node:assert/strict'
import type { AdapterModule, AdapterOptions, EngineOptions, NativeEngine } from '../../lib/native/addon.ts'
import { addon } from '../../lib/native/load.ts'
import { distance, engineOptions, randomBatch, smallSpec, weightSum } from './models.ts'
import { shapes } from './shapes.ts'

const projections = ['attention.q', 'attention.k', 'attention.v', 'attention.o', 'mlp.gate', 'mlp.up', 'mlp.down']

/** Every projection of every layer, with ranks and scales of their own. */
function everywhere(layers: number, names = projections): AdapterModule[] {
  return Array.from({ length: layers }, (_, layer) =>
    names.map((name, i) => ({
      name: `layers.${layer}.${name}`,
      parts: [`layers.${layer}.${name}`],
      rank: 1 + ((i + layer) % 4),
      scale: 0.5 + 0.25 * i,
    })),
  ).flat()
}

/** Modules that cover several projections, as Phi-3 has them; the others have none. */
function fused(layers: number): AdapterModule[] {
  return Array.from({ length: layers }, (_, layer) => {
    const part = (name: string) => `layers.${layer}.${name}`
    return [
      { name: part('attention.qkv'), parts: ['q', 'k', 'v'].map((p) => part(`attention.${p}`)), rank: 3, scale: 1.5 },
      { name: part('mlp.gate_up'), parts: [part('mlp.gate'), part('mlp.up')], rank: 2, scale: 0.7 },
    ]
  }).flat()
}

const biased = { attentionBias: true, attentionOutputBias: true, mlpBias: true, tiedEmbeddings: false }
const cases: Record<string, { adapters: AdapterOptions; spec?: object }> = {
  LoRA: { adapters: { modules: everywhere(3), dora: false, dropout: 0 } },
  'LoRA with dropout': { adapters: { modules: everywhere(3), dora: false, dropout: 0.3 } },
  'LoRA of q and v': { adapters: { modules: everywhere(3, ['attention.q', 'attention.v']), dora: false, dropout: 0 } },
  'LoRA of fused modules': { adapters: { modules: fused(3), dora: false, dropout: 0 } },
  DoRA: { adapters: { modules: everywhere(3), dora: true, dropout: 0 }, spec: biased },
  'DoRA with dropout': { adapters: { modules: everywhere(3), dora: true, dropout: 0.3 }, spec: biased },
  'DoRA beside norms on both sides and of each head': {
    adapters: { modules: everywhere(3), dora: true, dropout: 0 },
    spec: shapes['Gemma 3: two rotary tables']!,
  },
  'LoRA of MLPs without gates, in a parallel residual': {
    adapters: {
      modules: everywhere(
        3,
        projections.filter((name) => name !== 'mlp.gate'),
      ),
      dora: false,
      dropout: 0.3,
    },
    spec: shapes['Phi: parallel residual, a bias on the head']!,
  },
  'DoRA of fused modules': { adapters: { modules: fused(3), dora: true, dropout: 0 }, spec: biased },
}

const random = { seed: 5, step: 3 }

async function write(engine: NativeEngine, name: string, values: Float64Array): Promise<void> {
  await engine.write(name, 0, 'float64', new Uint8Array(values.buffer))
}

async function read(engine: NativeEngine, name: string, count: number): Promise<Float64Array> {
  return new Float64Array((await engine.read(name, 0, count, 'float64')).buffer)
}

function countOf(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1)
}

const isAdapter = (name: string) => name.includes('.lora_')

/** A random model whose adapters are far from their start: B not zero, magnitudes not the norms. */
async function adaptedEngine(options: EngineOptions): Promise<NativeEngine> {
  const engine = new (addon().Engine)(options)
  await engine.initialize(7, 0.3)
  await engine.initializeAdapters(11)
  for (const { name, shape } of engine.parameters()) {
    if (name.endsWith('.lora_b')) {
      await write(
        engine,
        name,
        Float64Array.from({ length: countOf(shape) }, (_, i) => 0.3 * Math.sin(i * 1.7 + 1)),
      )
    } else if (name.endsWith('.lora_magnitude')) {
      const norms = await read(engine, name, countOf(shape))
      await write(
        engine,
        name,
        norms.map((norm, i) => norm * (1 + 0.2 * Math.cos(i))),
      )
    }
  }
  await engine.commit()
  return engine
}

async function adapterGradients(engine: NativeEngine): Promise<Map<string, Float64Array>> {
  const result = new Map<string, Float64Array>()
  for (const { name, shape } of engine.parameters()) {
    if (!isAdapter(name)) continue
    const count = countOf(shape)
    result.set(name, new Float64Array((await engine.readGradient(name, 0, count, 'float64')).buffer))
  }
  return result
}

/** ‖W + s · B A‖ of every row of a module. */
async function rowNorms(engine: NativeEngine, { name, parts, rank, scale }: AdapterModule): Promise<Float64Array> {
  const shapes = new Map(engine.parameters().map((parameter) => [parameter.name, parameter.shape]))
  const get = (parameter: string) => read(engine, parameter, countOf(shapes.get(parameter)!))
  const weight = (await Promise.all(parts.map((part) => get(`${part}.weight`)))).flatMap((values) => [...values])
  const [a, b] = [await get(`${name}.lora_a`), await get(`${name}.lora_b`)]
  const width = a.length / rank
  return Float64Array.from({ length: weight.length / width }, (_, n) => {
    let squares = 0
    for (let k = 0; k < width; k++) {
      let value = weight[n * width + k]!
      for (let r = 0; r < rank; r++) value += scale * b[n * rank + r]! * a[r * width + k]!
      squares += value ** 2
    }
    return Math.sqrt(squares)
  })
}

/**
 * DoRA's norm is a constant for the gradient of A and B (section 4.3 of the paper), but differences would see it. So the
 * magnitudes are changed with it, which leaves their quotient as it was; returns what undoes that.
 */
async function keepingNorms(engine: NativeEngine, module: AdapterModule, change: () => Promise<void>) {
  const before = await rowNorms(engine, module)
  const name = `${module.name}.lora_magnitude`
  const magnitude = await read(engine, name, before.length)
  await change()
  const after = await rowNorms(engine, module)
  await write(
    engine,
    name,
    magnitude.map((value, n) => (value * after[n]!) / before[n]!),
  )
  return () => write(engine, name, magnitude)
}

function optionsOf(
  backend: 'reference' | 'cpu',
  compute: 'float64' | 'float32' | 'bfloat16',
  { adapters, spec }: (typeof cases)[string],
  changes: Partial<EngineOptions> = {},
): EngineOptions {
  return engineOptions(backend, compute, { spec: smallSpec(spec), adapters, ...changes })
}

describe('adapters', () => {
  for (const [name, setting] of Object.entries(cases)) {
    it(`have the gradients of finite differences: ${name}`, async () => {
      const engine = await adaptedEngine(optionsOf('reference', 'float64', setting))
      const batch = randomBatch([12, 1, 8])
      const sum = weightSum(batch)
      await engine.accumulate(batch, sum, true, random)
      const computed = await adapterGradients(engine)
      const step = 1e-5
      for (const [parameter, gradient] of computed) {
        const module = setting.adapters.modules.find(({ name }) => parameter.startsWith(`${name}.lora_`))!
        for (let probe = 0; probe < 3; probe++) {
          const index = (probe * 37 + 5) % gradient.length
          const values = await read(engine, parameter, gradient.length)
          const losses: number[] = []
          for (const sign of [1, -1]) {
            const put = () => write(engine, parameter, values.with(index, values[index]! + sign * step))
            const norm = setting.adapters.dora && !parameter.endsWith('lora_magnitude')
            const restore = norm ? await keepingNorms(engine, module, put) : await put()
            await engine.commit()
            losses.push((await engine.accumulate(batch, sum, true, random)).loss / sum)
            await restore?.()
            await write(engine, parameter, values)
          }
          await engine.commit()
          const expected = (losses[0]! - losses[1]!) / (2 * step)
          assert.ok(
            Math.abs(gradient[index]! - expected) < 1e-7 + 1e-6 * Math.abs(expected),
            `${parameter}[${index}]: ${gradient[index]} instead of ${expected}`,
          )
        }
      }
      engine.close()
    })

    for (const [compute, tolerance] of [
      ['float32', 3e-5],
      ['bfloat16', 0.2],
    ] as const) {
      it(`cpu ${compute} agrees with the reference: ${name}`, async () => {
        const batch = randomBatch([12, 1, 8, 30])
        const reference = await adaptedEngine(optionsOf('reference', 'float64', setting))
        const engine = await adaptedEngine(optionsOf('cpu', compute, setting))
        const expected = await reference.accumulate(batch, weightSum(batch), true, random)
        const sums = await engine.accumulate(batch, weightSum(batch), true, random)
        assert.ok(Math.abs(sums.loss - expected.loss) < tolerance * expected.loss, `${sums.loss} ${expected.loss}`)
        const wanted = await adapterGradients(reference)
        for (const [parameter, gradient] of await adapterGradients(engine)) {
          const error = distance(gradient, wanted.get(parameter)!)
          assert.ok(error < tolerance, `${parameter}: ${error}`)
        }
        reference.close()
        engine.close()
      })
    }

    it(`recomputation changes no bit, and micro-batches add up: ${name}`, async () => {
      for (const backend of ['reference', 'cpu'] as const) {
        const batch = randomBatch([12, 1, 8])
        const results = []
        for (const recompute of [false, true]) {
          const engine = await adaptedEngine(optionsOf(backend, 'float32', setting, { recompute }))
          await engine.accumulate(batch, weightSum(batch), true, random)
          results.push(await adapterGradients(engine))
          engine.close()
        }
        assert.deepEqual(results[1], results[0])
      }
    })

    it(`merged weights compute the same: ${name}`, async () => {
      for (const [backend, compute, bound] of [
        ['reference', 'float64', 1e-12],
        ['cpu', 'float32', 1e-5],
      ] as const) {
        const engine = await adaptedEngine(optionsOf(backend, compute, setting, { training: false }))
        const batch = randomBatch([12, 9])
        const apart = await engine.logits(batch)
        await engine.mergeAdapters()
        const merged = await engine.logits(batch)
        assert.ok(distance(merged, apart) < Math.max(bound, 1e-7), `${backend}: ${distance(merged, apart)}`)
        await assert.rejects(engine.mergeAdapters(), { code: 'ERR_INVALID_ARGUMENT' })
        engine.close()
      }
    })

    it(`decodes with the cache what it computes at once: ${name}`, async () => {
      for (const [backend, compute, bound] of [
        ['reference', 'float32', 1e-5],
        ['cpu', 'float32', 1e-5],
        ['cpu', 'bfloat16', 0.1],
      ] as const) {
        const options = optionsOf(backend, compute, setting, { training: false, cacheTokens: 64, maxTokens: 10 })
        const cached = await adaptedEngine(options)
        const whole = await adaptedEngine({ ...options, maxTokens: 64 })
        const batch = randomBatch([25])
        const logits = await whole.logits(batch)
        const vocab = options.spec.vocabSize
        let position = 0
        for (const end of [23, 24, 25]) {
          const result = await cached.extend(batch.tokens.slice(position, end), position)
          position = end
          const error = distance(result, logits.subarray((end - 1) * vocab, end * vocab))
          assert.ok(error < bound, `${backend} ${compute}: ${error}`)
        }
        cached.close()
        whole.close()
      }
    })
  }

  it('start as PEFT starts them: the model computes what it did, and every gradient but that of A is there', async () => {
    for (const dora of [false, true]) {
      const setting = { adapters: { modules: everywhere(3), dora, dropout: 0 } }
      const options = optionsOf('cpu', 'float32', setting)
      const plain = new (addon().Engine)(engineOptions('cpu', 'float32'))
      await plain.initialize(7, 0.3)
      await plain.commit()
      const engine = new (addon().Engine)(options)
      await engine.initialize(7, 0.3)
      await engine.initializeAdapters(11)
      await engine.commit()
      const batch = randomBatch([12, 9])
      assert.ok(distance(await engine.logits(batch), await plain.logits(batch)) < 1e-6)
      for (const { name, shape } of engine.parameters()) {
        if (!name.endsWith('.lora_a')) continue
        const values = await read(engine, name, countOf(shape))
        const bound = 1 / Math.sqrt(shape[1]!)
        assert.ok(values.every((value) => Math.abs(value) <= bound))
        // The variance of a uniform distribution, within five standard deviations of its estimate.
        const variance = values.reduce((sum, value) => sum + value ** 2, 0) / values.length
        const expected = bound ** 2 / 3
        assert.ok(
          Math.abs(variance / expected - 1) < 5 * Math.sqrt(0.8 / values.length),
          `${name}: ${variance / expected}`,
        )
      }
      plain.close()
      engine.close()
    }
  })

  it('after the first step every adapter has a gradient, with recomputation too, and the base has not moved', async () => {
    for (const recompute of [false, true])
      for (const dora of [false, true]) {
        const setting = { adapters: { modules: everywhere(3), dora, dropout: 0.1 } }
        const engine = new (addon().Engine)(optionsOf('cpu', 'bfloat16', setting, { recompute }))
        await engine.initialize(7, 0.3)
        await engine.initializeAdapters(11)
        await engine.commit()
        const base = engine.parameters().filter(({ name }) => !isAdapter(name))
        const before = await Promise.all(base.map(({ name, shape }) => read(engine, name, countOf(shape))))
        const batch = randomBatch([12, 1, 8, 30])
        const step = { learningRate: 0.01, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0.1, maxGradNorm: 1 }
        for (const number of [1, 2]) {
          await engine.accumulate(batch, weightSum(batch), true, { seed: 1, step: number })
          if (number === 2)
            for (const [name, gradient] of await adapterGradients(engine))
              assert.ok(
                gradient.some((value) => value !== 0),
                name,
              )
          await engine.optimizerStep({ ...step, step: number })
        }
        const after = await Promise.all(base.map(({ name, shape }) => read(engine, name, countOf(shape))))
        assert.deepEqual(after, before)
        engine.close()
      }
  })

  it('frozen weights have neither gradient nor optimizer memory', () => {
    const options = optionsOf('cpu', 'float32', cases.LoRA!)
    const engine = new (addon().Engine)(options)
    const adapters = engine.parameters().filter(({ name }) => isAdapter(name))
    const bytes = 4 * adapters.reduce((sum, { shape }) => sum + countOf(shape), 0)
    const rounded = Math.ceil(bytes / 256) * 256
    assert.equal(engine.plan.gradients, rounded)
    assert.equal(engine.plan.optimizer, 2 * rounded)
    const { adapters: _, ...full } = options
    assert.ok(addon().plan(full).gradients > 2 * rounded)
    engine.close()
  })

  it('dropout depends on seed, step, conversation and position, not on the micro-batch', async () => {
    const setting = { adapters: { modules: everywhere(3), dora: false, dropout: 0.3 } }
    const engine = await adaptedEngine(optionsOf('reference', 'float64', setting))
    const whole = { ...randomBatch([12, 8, 9]), numbers: Int32Array.of(4, 0, 2) }
    const sum = weightSum(whole)
    const { perSequence } = await engine.accumulate(whole, sum, true, random)
    const gradient = await adapterGradients(engine)
    let start = 0
    for (const [index, length] of [12, 8, 9].entries()) {
      const piece = (values: Int32Array) => values.slice(start, start + length)
      const part = {
        tokens: piece(whole.tokens),
        positions: piece(whole.positions),
        cuSeqlens: Int32Array.of(0, length),
        targets: piece(whole.targets),
        weights: whole.weights.slice(start, start + length),
        numbers: whole.numbers.slice(index, index + 1),
      }
      const alone = await engine.accumulate(part, sum, index === 0, random)
      assert.ok(Math.abs(alone.loss / perSequence[index]! - 1) < 1e-12)
      start += length
    }
    for (const [name, values] of await adapterGradients(engine))
      assert.ok(distance(values, gradient.get(name)!) < 1e-10)
    const losses = new Set<number>()
    for (const [seed, step, first] of [
      [5, 3, 4],
      [6, 3, 4],
      [5, 4, 4],
      [5, 3, 1],
    ] as const) {
      const batch = { ...whole, numbers: Int32Array.of(first, 0, 2) }
      losses.add((await engine.accumulate(batch, sum, true, { seed, step })).loss)
    }
    assert.equal(losses.size, 4)
    // Evaluation drops nothing, also right after a step.
    const evaluated = (await engine.evaluate(whole)).loss
    assert.equal((await engine.evaluate(whole)).loss, evaluated)
    assert.ok(!losses.has(evaluated))
    await assert.rejects(engine.accumulate(whole, sum, true), { code: 'ERR_INVALID_ARGUMENT' })
    engine.close()
  })

  it('refuses modules that do not fit the model', () => {
    const make = (modules: AdapterModule[]) => () =>
      new (addon().Engine)(optionsOf('reference', 'float32', { adapters: { modules, dora: false, dropout: 0 } }))
    const module = (changes: Partial<AdapterModule>) => [
      { name: 'layers.0.attention.q', parts: ['layers.0.attention.q'], rank: 2, scale: 1, ...changes },
    ]
    assert.throws(make(module({ parts: ['layers.9.attention.q'] })), { code: 'ERR_UNKNOWN_PARAMETER' })
    assert.throws(make(module({ rank: 0 })), { code: 'ERR_INVALID_ARGUMENT' })
    assert.throws(make(module({ parts: ['layers.0.attention.q', 'layers.0.mlp.down'] })), /another input/)
    assert.throws(make([...module({}), ...module({ name: 'twice' })]), /has an adapter already/)
  })
})
