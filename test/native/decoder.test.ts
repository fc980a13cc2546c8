import assert from 'node:assert/strict'
import type { ComputeType, EngineOptions } from '../../lib/native/addon.ts'
import {
  agreesWithReference,
  distance,
  engineOptions,
  gradients,
  randomBatch,
  randomEngine,
  smallSpec,
  weightSum,
} from './models.ts'
import { shapes } from './shapes.ts'

/** Three elements of every gradient against finite differences of the loss that is minimised. */
async function checkGradients(options: EngineOptions): Promise<void> {
  const engine = await randomEngine(options)
  const batch = randomBatch([12, 1, 8])
  const sum = weightSum(batch)
  const loss = async () => (await engine.accumulate(batch, sum, true)).loss / sum
  await loss()
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
        losses.push(await loss())
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
}

describe('decoder', () => {
  it('has the gradients of other objectives through scales and caps of the logits', async () => {
    const spec = smallSpec(shapes['parallel residual of RMSNorms with scales and caps'])
    const objective = { labelSmoothing: 0.1, zLoss: 0.01, dft: false }
    await checkGradients(engineOptions('reference', 'float64', { spec, objective }))
  })

  for (const [name, changes] of Object.entries(shapes)) {
    it(`has the gradients of finite differences: ${name}`, async () => {
      await checkGradients(engineOptions('reference', 'float64', { spec: smallSpec(changes) }))
    })

    for (const [compute, tolerance] of [
      ['float32', 2e-5],
      ['bfloat16', 0.08],
    ] as [ComputeType, number][]) {
      it(`cpu ${compute} agrees with the reference: ${name}`, async () => {
        await agreesWithReference('cpu', compute, tolerance, changes)
      })
    }
  }

  for (const [name, changes] of Object.entries(shapes)) {
    const spec = smallSpec(changes)
    it(`decodes with the cache what it computes at once: ${name}`, async () => {
      for (const backend of ['reference', 'cpu'] as const) {
        const options = engineOptions(backend, 'float32', { spec, training: false, cacheTokens: 64, maxTokens: 10 })
        const cached = await randomEngine(options)
        const whole = await randomEngine({ ...options, maxTokens: 64 })
        const vocab = options.spec.vocabSize
        // A prompt longer than one chunk, then single tokens, then a few; and from the middle again. Where the rotary
        // table depends on the length, each is compared with a conversation of its own length.
        const { tokens } = randomBatch([25])
        let position = 0
        for (const end of [23, 24, 25, 6, 7, 9, 12, 13]) {
          if (end < position) position = end - 2
          const result = await cached.extend(tokens.slice(position, end), position)
          position = end
          const batch = { ...randomBatch([end]), tokens: tokens.slice(0, end) }
          const expected = (await whole.logits(batch)).subarray((end - 1) * vocab)
          assert.ok(distance(result, expected) < 1e-5, `${end}: ${distance(result, expected)}`)
        }
        cached.close()
        whole.close()
      }
    })

    it(`decodes several sequences beside each other as if each were alone: ${name}`, async () => {
      for (const backend of ['reference', 'cpu'] as const) {
        const options = engineOptions(backend, 'float32', {
          spec,
          training: false,
          cacheTokens: 32,
          cacheSequences: 11,
          maxTokens: 12,
          maxSupervised: 11,
          maxSequences: 11,
        })
        const cached = await randomEngine(options)
        const whole = await randomEngine({ ...options, maxTokens: 64, maxSupervised: 64 })
        const vocab = spec.vocabSize
        const texts = Array.from({ length: 11 }, (_, slot) =>
          randomBatch([20]).tokens.map((id) => (id * (slot + 2)) % vocab),
        )
        const done = new Int32Array(11)
        /** Continues the sequences in `slots` by so many tokens each, and compares the logits after the last. */
        const extend = async (slots: number[], counts: number[]) => {
          const starts = slots.map((slot) => done[slot]!)
          const ends = slots.map((_, i) => starts[i]! + counts[i]!)
          const pieces = slots.map((slot, i) => [...texts[slot]!.slice(starts[i], ends[i])])
          let total = 0
          const logits = await cached.extendAll({
            tokens: Int32Array.from(pieces.flat()),
            cuSeqlens: Int32Array.from([0, ...counts.map((count) => (total += count))]),
            slots: Int32Array.from(slots),
            positions: Int32Array.from(starts),
          })
          for (const [i, slot] of slots.entries()) {
            done[slot] = ends[i]!
            const batch = { ...randomBatch([ends[i]!]), tokens: texts[slot]!.slice(0, ends[i]) }
            const expected = (await whole.logits(batch)).subarray((ends[i]! - 1) * vocab)
            const error = distance(logits.subarray(i * vocab, (i + 1) * vocab), expected)
            assert.ok(error < 1e-5, `${backend}, sequence ${slot}, ${ends[i]} tokens: ${error}`)
          }
        }
        // Prompts beside tokens, more than fit a micro-batch, all at once, and out of order.
        await extend([3, 0], [5, 4])
        await extend([7], [14])
        await extend([1, 3, 2], [8, 1, 9])
        await extend([10, 9, 8, 6, 5, 4], [2, 2, 2, 2, 2, 1])
        for (let step = 0; step < 2; step++) await extend([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], Array(11).fill(1))
        await extend([7, 3], [1, 10])
        cached.close()
        whole.close()
      }
    })

    it(`recomputation and an earlier step change no bit: ${name}`, async () => {
      for (const backend of ['reference', 'cpu'] as const) {
        const batch = randomBatch([12, 1, 8])
        const results = []
        for (const recompute of [false, true]) {
          const engine = await randomEngine(engineOptions(backend, 'float32', { spec, recompute }))
          // A second step starts from nothing again.
          for (let step = 0; step < (recompute ? 2 : 1); step++) await engine.accumulate(batch, weightSum(batch), true)
          results.push(await gradients(engine))
          engine.close()
        }
        assert.deepEqual(results[1], results[0])
      }
    })

    // The last layer computes the rows that carry loss only, logits() all of them.
    it(`has the loss of its logits: ${name}`, async () => {
      const engine = await randomEngine(engineOptions('reference', 'float64', { spec }))
      const batch = randomBatch([12, 1, 8])
      const { loss } = await engine.evaluate(batch)
      const logits = await engine.logits(batch)
      let expected = 0
      for (const [row, weight] of batch.weights.entries()) {
        const values = logits.subarray(row * spec.vocabSize, (row + 1) * spec.vocabSize)
        const total = values.reduce((sum, value) => sum + Math.exp(value), 0)
        expected += weight * (Math.log(total) - values[batch.targets[row]!]!)
      }
      assert.ok(Math.abs(loss / expected - 1) < 1e-6, `${loss} ${expected}`)
      engine.close()
    })
  }

  it('refuses sequences that its cache has not, or has twice', async () => {
    const changes = { training: false, cacheTokens: 32, cacheSequences: 3, maxSequences: 3, maxSupervised: 3 }
    const engine = await randomEngine(engineOptions('cpu', 'float32', changes))
    const extend = (slots: number[], positions: number[], cuSeqlens = [0, 1, 2]) =>
      engine.extendAll({
        tokens: Int32Array.of(1, 2),
        cuSeqlens: Int32Array.from(cuSeqlens),
        slots: Int32Array.from(slots),
        positions: Int32Array.from(positions),
      })
    await assert.rejects(extend([1, 1], [0, 0]), { code: 'ERR_INVALID_BATCH' })
    await assert.rejects(extend([1, 3], [0, 0]), { code: 'ERR_INVALID_BATCH' })
    await assert.rejects(extend([1, 2], [0, 32]), { code: 'ERR_CONTEXT_FULL' })
    assert.throws(() => extend([1, 2], [0, 0], [0, 2, 1]), { code: 'ERR_INVALID_ARGUMENT' })
    assert.throws(() => extend([1, 2], [0]), { code: 'ERR_INVALID_ARGUMENT' })
    engine.close()
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
