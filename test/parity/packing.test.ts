// Conversations that share a micro-batch never see each other: each has the logits and gradients it has alone, and what
// stands in one does not change a bit of another.
import assert from 'node:assert/strict'
import type { EngineOptions, MicroBatch, NativeEngine } from '../../lib/native/addon.ts'
import { distance, engineOptions, gradients, randomBatch, randomEngine, weightSum } from '../native/models.ts'

const lengths = [5, 1, 17, 9, 2, 12]
const packed = randomBatch(lengths)
const vocabSize = 61
const settings = [
  engineOptions('reference', 'float64'),
  engineOptions('reference', 'float32'),
  engineOptions('cpu', 'float32'),
  engineOptions('cpu', 'bfloat16'),
]

for (const setting of settings) {
  describe(`packing on ${setting.backend} in ${setting.compute}`, () => {
    let engine: NativeEngine
    // Other shapes mean other blocks of a matmul and another order of its sums; bfloat16 rounds every activation.
    const bound = setting.compute === 'float64' ? 1e-6 : setting.compute === 'float32' ? 2e-5 : 3e-2
    before(async () => {
      engine = await randomEngine(setting as EngineOptions)
    })
    after(() => engine.close())

    it('leaves every conversation the logits it has alone', async () => {
      const together = await engine.logits(packed)
      for (const index of lengths.keys()) {
        const [start, end] = rows(packed, index)
        const alone = await engine.logits(conversation(packed, index))
        const error = distance(together.subarray(start * vocabSize, end * vocabSize), alone)
        assert.ok(error < bound, `conversation ${index} differs by ${error}`)
      }
    })

    it('leaves every conversation the gradients it has alone', async () => {
      for (const index of lengths.keys()) {
        const alone = conversation(packed, index)
        const divisor = weightSum(alone)
        if (divisor === 0) continue
        await engine.accumulate(alone, divisor, true)
        const expected = await gradients(engine)
        await engine.accumulate(withWeightOf(packed, index), divisor, true)
        for (const [name, values] of await gradients(engine)) {
          const error = distance(values, expected.get(name)!)
          assert.ok(error < bound, `${name} of conversation ${index} differs by ${error}`)
        }
      }
    })

    it('lets no bit of a conversation through to another', async () => {
      const before = await engine.logits(packed)
      for (const index of lengths.keys()) {
        const after = await engine.logits(changed(packed, index))
        for (const other of lengths.keys()) {
          const [start, end] = rows(packed, other)
          const same = equalBits(
            before.subarray(start * vocabSize, end * vocabSize),
            after.subarray(start * vocabSize, end * vocabSize),
          )
          assert.equal(same, other !== index, `conversation ${index} was changed, look at ${other}`)
        }
      }
    })

    it('lets no bit of a conversation without loss into the gradients', async () => {
      const index = 2
      const silent = { ...packed, weights: packed.weights.map((weight, t) => (within(packed, index, t) ? 0 : weight)) }
      await engine.accumulate(silent, weightSum(silent), true)
      const before = await gradients(engine)
      await engine.accumulate(changed(silent, index), weightSum(silent), true)
      assert.deepEqual(await gradients(engine), before)
    })

    it('would be caught if two conversations were one', async () => {
      const before = await engine.logits(packed)
      const joined = { ...packed, cuSeqlens: packed.cuSeqlens.filter((_, i) => i !== 3) }
      const after = await engine.logits(joined)
      const [start, end] = rows(packed, 3)
      const error = distance(
        after.subarray(start * vocabSize, end * vocabSize),
        before.subarray(start * vocabSize, end * vocabSize),
      )
      assert.ok(error > 100 * bound || error > 0.3, `differs by ${error} only`)
    })
  })
}

/** Rows [start, end) of a conversation. */
function rows({ cuSeqlens }: MicroBatch, index: number): [number, number] {
  return [cuSeqlens[index]!, cuSeqlens[index + 1]!]
}

function within(batch: MicroBatch, index: number, row: number): boolean {
  const [start, end] = rows(batch, index)
  return row >= start && row < end
}

function conversation(batch: MicroBatch, index: number): MicroBatch {
  const [start, end] = rows(batch, index)
  return {
    tokens: batch.tokens.slice(start, end),
    positions: batch.positions.slice(start, end),
    cuSeqlens: Int32Array.of(0, end - start),
    targets: batch.targets.slice(start, end),
    weights: batch.weights.slice(start, end),
  }
}

/** The same micro-batch with loss on one conversation only. */
function withWeightOf(batch: MicroBatch, index: number): MicroBatch {
  return { ...batch, weights: batch.weights.map((weight, row) => (within(batch, index, row) ? weight : 0)) }
}

/** Every token of one conversation is another one. */
function changed(batch: MicroBatch, index: number): MicroBatch {
  return { ...batch, tokens: batch.tokens.map((id, row) => (within(batch, index, row) ? (id + 30) % vocabSize : id)) }
}

function equalBits(a: Float32Array, b: Float32Array): boolean {
  return Buffer.from(a.buffer, a.byteOffset, a.byteLength).equals(Buffer.from(b.buffer, b.byteOffset, b.byteLength))
}
