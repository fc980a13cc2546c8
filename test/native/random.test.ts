import assert from 'node:assert/strict'
import type { DecoderSpec, EngineOptions, MicroBatch, RandomOptions } from '../../lib/native/addon.ts'
import { distance, engineOptions, gradients, randomBatch, randomEngine, smallSpec, weightSum } from './models.ts'

const all: RandomOptions = { neftuneAlpha: 5, embeddingDropout: 0.2, residualDropout: Float64Array.of(0.1, 0.4) }
const none: RandomOptions = { neftuneAlpha: 0, embeddingDropout: 0, residualDropout: Float64Array.of(0, 0) }
const draw = { seed: 3, step: 7 }
const lengths = [12, 1, 8]

const shapes: Record<string, Partial<DecoderSpec>> = {
  llama: {},
  gpt2: {
    norm: 'layer',
    normBias: true,
    attentionBias: true,
    attentionOutputBias: true,
    mlpBias: true,
    mlp: 'plain',
    activation: 'gelu_tanh',
    learnedPositions: 64,
    layerRopes: Int32Array.of(-1, -1, -1),
  },
  'parallel residual': { parallelResidual: true, norm: 'layer', normBias: true },
  'norms behind the blocks': { blockNorms: 'pre+post', embeddingScale: 2, residualScale: 0.5 },
}

/** The conversations of `batch` from `first` on, as a micro-batch of their own that keeps their numbers. */
function part(batch: MicroBatch, first: number, end: number): MicroBatch {
  const [from, to] = [batch.cuSeqlens[first]!, batch.cuSeqlens[end]!]
  return {
    tokens: batch.tokens.slice(from, to),
    positions: batch.positions.slice(from, to),
    targets: batch.targets.slice(from, to),
    weights: batch.weights.slice(from, to),
    cuSeqlens: batch.cuSeqlens.slice(first, end + 1).map((offset) => offset - from),
    numbers: Int32Array.from({ length: end - first }, (_, i) => first + i),
  }
}

async function stepOf(options: EngineOptions, random = draw) {
  const engine = await randomEngine(options)
  const batch = randomBatch(lengths)
  const { loss } = await engine.accumulate(batch, weightSum(batch), true, random)
  const result = { loss, gradients: await gradients(engine) }
  engine.close()
  return result
}

describe('noise and dropout', () => {
  for (const [name, changes] of Object.entries(shapes)) {
    const spec = smallSpec(changes)

    it(`have the gradients of finite differences: ${name}`, async () => {
      const engine = await randomEngine(engineOptions('reference', 'float64', { spec, random: all }))
      const batch = randomBatch(lengths)
      const sum = weightSum(batch)
      await engine.accumulate(batch, sum, true, draw)
      const computed = await gradients(engine)
      const put = async (parameter: string, index: number, value: number) => {
        await engine.write(parameter, index, 'float64', new Uint8Array(Float64Array.of(value).buffer))
        await engine.commit()
      }
      const step = 1e-5
      for (const [parameter, gradient] of computed) {
        for (let probe = 0; probe < 2; probe++) {
          const index = (probe * 37 + 5) % gradient.length
          const value = new Float64Array((await engine.read(parameter, index, 1, 'float64')).buffer)[0]!
          const losses: number[] = []
          for (const sign of [1, -1]) {
            await put(parameter, index, value + sign * step)
            losses.push((await engine.accumulate(batch, sum, true, draw)).loss / sum)
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

    it(`are the same on every backend, recomputed, and in other micro-batches: ${name}`, async () => {
      const reference = await stepOf(engineOptions('reference', 'float64', { spec, random: all }))
      const cpu = await stepOf(engineOptions('cpu', 'float32', { spec, random: all }))
      const again = await stepOf(engineOptions('cpu', 'float32', { spec, random: all, recompute: true }))
      assert.ok(Math.abs(cpu.loss - reference.loss) < 1e-5 * reference.loss)
      assert.deepEqual(again, cpu)
      const engine = await randomEngine(engineOptions('reference', 'float64', { spec, random: all }))
      const batch = randomBatch(lengths)
      await engine.accumulate(part(batch, 1, 3), weightSum(batch), true, draw)
      await engine.accumulate(part(batch, 0, 1), weightSum(batch), false, draw)
      const split = await gradients(engine)
      engine.close()
      for (const [parameter, gradient] of reference.gradients) {
        // The gradient of k's bias is nothing but rounding.
        if (parameter.endsWith('k.bias')) continue
        assert.ok(distance(split.get(parameter)!, gradient) < 1e-12, parameter)
        assert.ok(distance(cpu.gradients.get(parameter)!, gradient) < 1e-4, parameter)
      }
    })
  }

  it('follow seed and step, and each of them changes the loss', async () => {
    const options = engineOptions('cpu', 'float32')
    const plain = await stepOf(options)
    assert.deepEqual(await stepOf({ ...options, random: none }), plain)
    const changes: Partial<RandomOptions>[] = [
      { neftuneAlpha: 5 },
      { embeddingDropout: 0.2 },
      { residualDropout: Float64Array.of(0.2, 0) },
      { residualDropout: Float64Array.of(0, 0.2) },
    ]
    for (const change of changes) {
      const random = { ...none, ...change }
      const first = await stepOf({ ...options, random })
      assert.notEqual(first.loss, plain.loss)
      assert.equal((await stepOf({ ...options, random })).loss, first.loss)
      assert.notEqual((await stepOf({ ...options, random }, { ...draw, step: 8 })).loss, first.loss)
      assert.notEqual((await stepOf({ ...options, random }, { ...draw, seed: 4 })).loss, first.loss)
    }
  })

  it('are no part of evaluation, and want seed and step in training', async () => {
    const engine = await randomEngine(engineOptions('cpu', 'float32', { random: all }))
    const other = await randomEngine(engineOptions('cpu', 'float32'))
    const batch = randomBatch(lengths)
    assert.deepEqual(await engine.evaluate(batch), await other.evaluate(batch))
    await assert.rejects(engine.accumulate(batch, weightSum(batch), true), { code: 'ERR_INVALID_ARGUMENT' })
    engine.close()
    other.close()
  })
})
