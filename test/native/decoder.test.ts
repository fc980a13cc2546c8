import assert from 'node:assert/strict'
import type { ComputeType, DecoderSpec } from '../../lib/native/addon.ts'
import { distance, engineOptions, gradients, randomBatch, randomEngine, smallSpec, weightSum } from './models.ts'

const shapes: Record<string, Partial<DecoderSpec>> = {
  'tied, grouped-query': {},
  'untied, biases everywhere': {
    tiedEmbeddings: false,
    attentionBias: true,
    attentionOutputBias: true,
    mlpBias: true,
  },
  'one layer, one head': { layers: 1, heads: 1, kvHeads: 1, headDim: 16 },
  'head size unlike hidden/heads, odd sizes': {
    hiddenSize: 20,
    heads: 6,
    kvHeads: 3,
    headDim: 10,
    intermediateSize: 33,
  },
}

describe('decoder', () => {
  for (const [name, changes] of Object.entries(shapes)) {
    it(`has the gradients of finite differences: ${name}`, async () => {
      const engine = await randomEngine(engineOptions('reference', 'float64', { spec: smallSpec(changes) }))
      const batch = randomBatch([12, 1, 8])
      const sum = weightSum(batch)
      await engine.accumulate(batch, sum, true)
      const computed = await gradients(engine)
      const put = async (parameter: string, index: number, value: number) => {
        await engine.write(parameter, index, 'float64', new Uint8Array(Float64Array.of(value).buffer))
        await engine.commit()
      }
      const step = 1e-5
      for (const [parameter, gradient] of computed) {
        for (let probe = 0; probe < 3; probe++) {
          const index = (probe * 37 + 5) % gradient.length
          const value = new Float64Array((await engine.read(parameter, index, 1, 'float64')).buffer)[0]!
          const losses: number[] = []
          for (const sign of [1, -1]) {
            await put(parameter, index, value + sign * step)
            losses.push((await engine.evaluate(batch)).loss / sum)
          }
          await put(parameter, index, value)
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
      ['float32', 2e-5],
      ['bfloat16', 0.08],
    ] as [ComputeType, number][]) {
      it(`cpu ${compute} agrees with the reference: ${name}`, async () => {
        const spec = smallSpec(changes)
        const batch = randomBatch([12, 1, 8, 30])
        const reference = await randomEngine(engineOptions('reference', 'float64', { spec }))
        const engine = await randomEngine(engineOptions('cpu', compute, { spec }))
        const expected = await reference.accumulate(batch, weightSum(batch), true)
        const sums = await engine.accumulate(batch, weightSum(batch), true)
        assert.ok(Math.abs(sums.loss - expected.loss) < tolerance * expected.loss, `${sums.loss} ${expected.loss}`)
        assert.equal(sums.supervised, expected.supervised)
        const wanted = await gradients(reference)
        for (const [parameter, gradient] of await gradients(engine)) {
          const error = distance(gradient, wanted.get(parameter)!)
          // Biases of k have no gradient in exact arithmetic (softmax does not see a shift): only noise is left.
          if (parameter.endsWith('attention.k.bias')) continue
          assert.ok(error < tolerance, `${parameter}: ${error}`)
        }
        reference.close()
        engine.close()
      })
    }
  }

  it('decodes with the cache what it computes at once', async () => {
    for (const backend of ['reference', 'cpu'] as const) {
      const options = engineOptions(backend, 'float32', { training: false, cacheTokens: 64, maxTokens: 10 })
      const cached = await randomEngine(options)
      const whole = await randomEngine({ ...options, maxTokens: 64 })
      const batch = randomBatch([25])
      const logits = await whole.logits(batch)
      const vocab = options.spec.vocabSize
      let position = 0
      // A prompt longer than one chunk, then single tokens.
      for (const end of [23, 24, 25]) {
        const result = await cached.extend(batch.tokens.slice(position, end), position)
        position = end
        assert.ok(distance(result, logits.subarray((end - 1) * vocab, end * vocab)) < 1e-5)
      }
      cached.close()
      whole.close()
    }
  })

  it('recomputation changes no bit', async () => {
    for (const backend of ['reference', 'cpu'] as const) {
      const batch = randomBatch([12, 1, 8])
      const results = []
      for (const recompute of [false, true]) {
        const engine = await randomEngine(engineOptions(backend, 'float32', { recompute }))
        await engine.accumulate(batch, weightSum(batch), true)
        results.push(await gradients(engine))
        engine.close()
      }
      assert.deepEqual(results[1], results[0])
    }
  })

  it('a micro-batch without loss leaves no gradient, and adds none', async () => {
    const engine = await randomEngine(engineOptions('cpu', 'float32'))
    const batch = randomBatch([12, 8])
    const silent = { ...batch, weights: new Float32Array(batch.weights.length) }
    await engine.accumulate(batch, weightSum(batch), true)
    const alone = await gradients(engine)
    await engine.accumulate(silent, 1, false)
    assert.deepEqual(await gradients(engine), alone)
    await engine.accumulate(silent, 1, true)
    for (const gradient of (await gradients(engine)).values()) assert.ok(gradient.every((value) => value === 0))
    engine.close()
  })

  it('one conversation changes no bit of another', async () => {
    const engine = await randomEngine(engineOptions('cpu', 'float32'))
    const batch = randomBatch([12, 9, 8])
    const before = await engine.logits(batch)
    const tokens = Int32Array.from(batch.tokens)
    tokens.set(tokens.slice(12, 21).reverse(), 12)
    const after = await engine.logits({ ...batch, tokens })
    const vocab = smallSpec().vocabSize
    assert.deepEqual(after.subarray(0, 12 * vocab), before.subarray(0, 12 * vocab))
    assert.deepEqual(after.subarray(21 * vocab), before.subarray(21 * vocab))
    assert.notDeepEqual(after, before)
    engine.close()
  })
})
