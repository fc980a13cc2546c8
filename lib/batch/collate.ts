/** Lays examples end to end as one MicroBatch: no padding, positions from 0 in each, no target across a boundary. */
import type { Example } from '../data/conversation.ts'
import type { MicroBatch } from '../native/addon.ts'

/**
 * The micro-batch of `examples`, in their order. The target at t is token t + 1 of the same conversation and its weight
 * is that token's; the last token of a conversation has target 0 and weight 0. The weight of a conversation's first
 * token is never used: nothing predicts it.
 */
export function collate(examples: readonly Example[]): MicroBatch {
  let total = 0
  for (const { ids } of examples) total += ids.length
  const batch: MicroBatch = {
    tokens: new Int32Array(total),
    positions: new Int32Array(total),
    cuSeqlens: new Int32Array(examples.length + 1),
    targets: new Int32Array(total),
    weights: new Float32Array(total),
  }
  let start = 0
  for (const [index, { ids, weights }] of examples.entries()) {
    const length = ids.length
    batch.tokens.set(ids, start)
    batch.targets.set(ids.subarray(1), start)
    batch.weights.set(weights.subarray(1), start)
    for (let position = 0; position < length; position++) batch.positions[start + position] = position
    start += length
    batch.cuSeqlens[index + 1] = start
  }
  return batch
}
