import assert from 'node:assert/strict'
import fc from 'fast-check'
import { conversationCount, exampleSet } from '../../lib/batch/example-set.ts'
import { addPacking, noPacking, packingOf } from '../../lib/batch/packing.ts'
import { epochOrder } from '../../lib/batch/sampler.ts'
import {
  buildStep,
  evalMicroBatches,
  microBatchLimits,
  planPacking,
  planSteps,
  type StepSize,
} from '../../lib/batch/steps.ts'
import { example, exampleSets } from './helpers.ts'

const sizes: fc.Arbitrary<StepSize> = fc.oneof(
  fc.record({ conversations: fc.integer({ min: 1, max: 12 }) }),
  fc.record({ tokens: fc.integer({ min: 1, max: 400 }) }),
)
const orders = { seed: 3, epoch: 0, shuffle: true }

describe('steps', () => {
  it('count conversations and keep the last partial step', () => {
    const set = exampleSet([1, 2, 3, 4, 5].map((i) => [example(i * 10, 4)]))
    const steps = planSteps(set, epochOrder(5, { ...orders, shuffle: false }), { conversations: 2 })
    assert.deepEqual(
      steps.map((step) => [...step]),
      [[0, 1], [2, 3], [4]],
    )
  })

  it('fill a token budget without exceeding it, a longer conversation alone', () => {
    const set = exampleSet([4, 5, 30, 3, 3, 3].map((length, i) => [example(i * 100 + 1, length)]))
    const steps = planSteps(set, epochOrder(6, { ...orders, shuffle: false }), { tokens: 10 })
    assert.deepEqual(
      steps.map((step) => [...step]),
      [[0, 1], [2], [3, 4, 5]],
    )
  })

  it('hold the same conversations whatever the micro-batches, pieces of one together', () => {
    fc.assert(
      fc.property(exampleSets, sizes, fc.integer({ min: 1, max: 200 }), (set, size, microBatchTokens) => {
        const order = epochOrder(conversationCount(set), orders)
        const seen: number[] = []
        for (const step of planSteps(set, order, size)) {
          const built = buildStep(set, step, microBatchTokens)
          const whole = buildStep(set, step, 1e9)
          assert.equal(whole.microBatches.length, 1)
          assert.ok(Math.abs(built.weightSum - whole.weightSum) < 1e-6)
          assert.equal(built.tokens, whole.tokens)
          assert.equal(built.supervisedTokens, whole.supervisedTokens)
          const firsts = built.microBatches.flatMap((batch) =>
            [...batch.cuSeqlens.slice(0, -1)].map((i) => batch.tokens[i]!),
          )
          const expected = [...step].flatMap((c) =>
            set.examples.slice(set.starts[c], set.starts[c + 1]).map((e) => e.ids[0]!),
          )
          assert.deepEqual(
            firsts.toSorted((a, b) => a - b),
            expected.toSorted((a, b) => a - b),
          )
          seen.push(...step)
        }
        assert.deepEqual(seen, [...order])
      }),
    )
  })

  it('tell how they are packed, as planned', () => {
    fc.assert(
      fc.property(exampleSets, fc.integer({ min: 1, max: 200 }), (set, microBatchTokens) => {
        const all = epochOrder(conversationCount(set), orders)
        const { packing, microBatches, tokens } = buildStep(set, all, microBatchTokens)
        assert.deepEqual(planPacking(set, all, microBatchTokens), packing)
        assert.deepEqual([packing.microBatches, packing.tokens], [microBatches.length, tokens])
        assert.ok(packing.paddedTokens >= tokens)
      }),
    )
    const set = exampleSet([4, 6, 10].map((length, i) => [example(i * 100 + 1, length)]))
    const sums = planPacking(set, Uint32Array.of(0, 1, 2), 10)
    assert.deepEqual(sums, { microBatches: 2, tokens: 20, paddedTokens: 12 + 10 })
    assert.deepEqual(packingOf(sums, 10), { fill: 1, padded: 1.1 })
    assert.deepEqual(packingOf(addPacking(sums, addPacking(sums, noPacking)), 20), { fill: 0.5, padded: 1.1 })
  })

  it('stay within the limits given to the memory plan', () => {
    fc.assert(
      fc.property(exampleSets, sizes, fc.integer({ min: 1, max: 200 }), (set, size, microBatchTokens) => {
        const limits = microBatchLimits(set, microBatchTokens, size)
        const evaluation = microBatchLimits(set, microBatchTokens)
        for (let epoch = 0; epoch < 3; epoch++) {
          const order = epochOrder(conversationCount(set), { ...orders, epoch })
          for (const step of planSteps(set, order, size)) {
            for (const batch of buildStep(set, step, microBatchTokens).microBatches) within(batch, limits)
          }
        }
        for (const batch of evalMicroBatches(set, microBatchTokens)) within(batch, evaluation)
      }),
    )
  })

  it('have limits no larger than a step', () => {
    const set = exampleSet([4, 5, 6, 7].map((length, i) => [example(i * 100 + 1, length, [0, 0, 0, 1])]))
    assert.deepEqual(microBatchLimits(set, 8192, { conversations: 2 }), { tokens: 13, supervised: 7, sequences: 2 })
  })

  it('evaluate every example once, in windows', () => {
    const set = exampleSet(Array.from({ length: 600 }, (_, i) => [example(i * 10 + 1, 3)]))
    const firsts = [...evalMicroBatches(set, 50)].flatMap((batch) =>
      [...batch.cuSeqlens.slice(0, -1)].map((i) => batch.tokens[i]!),
    )
    assert.deepEqual(
      firsts.toSorted((a, b) => a - b),
      set.examples.map(({ ids }) => ids[0]),
    )
  })

  it('refuse a step without supervised tokens and name its rows', () => {
    const set = exampleSet([[example(7, 3, [1, 0, 0])], [example(9, 2, [0, 0])]])
    assert.throws(
      () => buildStep(set, Uint32Array.of(0, 1), 100),
      (error: Error & { code?: string }) =>
        error.code === 'ERR_NO_SUPERVISED_TOKENS' && error.message.includes('train.jsonl:7, train.jsonl:9'),
    )
  })
})

type Limits = ReturnType<typeof microBatchLimits>

function within(batch: { tokens: Int32Array; weights: Float32Array; cuSeqlens: Int32Array }, limits: Limits): void {
  const supervised = batch.weights.filter((weight) => weight > 0).length
  assert.ok(batch.tokens.length <= limits.tokens, `${batch.tokens.length} tokens, planned ${limits.tokens}`)
  assert.ok(supervised <= limits.supervised, `${supervised} supervised, planned ${limits.supervised}`)
  assert.ok(batch.cuSeqlens.length - 1 <= limits.sequences)
}
