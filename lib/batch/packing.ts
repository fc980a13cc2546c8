/** How well conversations fill their micro-batches: sums that add up over steps, and what a person is told of them. */

export interface PackingSums {
  microBatches: number
  tokens: number
  /** Tokens that the same micro-batches would hold with every conversation padded to the longest beside it. */
  paddedTokens: number
}

export interface Packing {
  /** Mean share of microBatchTokens that a micro-batch holds; above 1 where single conversations are longer. */
  fill: number
  /** Tokens that padding would compute for every one that is computed; 1 where all are equally long. */
  padded: number
}

/** Of micro-batches given by the lengths of their conversations. */
export function packingSums(microBatches: readonly ArrayLike<number>[]): PackingSums {
  const sums: PackingSums = { microBatches: microBatches.length, tokens: 0, paddedTokens: 0 }
  for (const lengths of microBatches) {
    let longest = 0
    for (let i = 0; i < lengths.length; i++) {
      sums.tokens += lengths[i]!
      longest = Math.max(longest, lengths[i]!)
    }
    sums.paddedTokens += longest * lengths.length
  }
  return sums
}

export function addPacking(a: PackingSums, b: PackingSums): PackingSums {
  return {
    microBatches: a.microBatches + b.microBatches,
    tokens: a.tokens + b.tokens,
    paddedTokens: a.paddedTokens + b.paddedTokens,
  }
}

export const noPacking: PackingSums = { microBatches: 0, tokens: 0, paddedTokens: 0 }

/** What is told of at least one micro-batch. */
export function packingOf({ microBatches, tokens, paddedTokens }: PackingSums, microBatchTokens: number): Packing {
  return { fill: tokens / (microBatches * microBatchTokens), padded: paddedTokens / tokens }
}
