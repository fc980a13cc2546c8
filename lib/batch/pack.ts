/**
 * Packing inside a step: its examples are spread over as few micro-batches as `microBatchTokens` allows, and those are
 * made as even as they go. It changes memory and speed only; which conversations share a step is decided in steps.ts.
 */

/**
 * Distributes examples of the given lengths (tokens) over micro-batches of at most `capacity` tokens. An example longer
 * than that gets a micro-batch of its own. Returns the examples' indices per micro-batch, ascending in each; the
 * micro-batches are ordered by their first example, so that the same step always packs alike.
 */
export function packStep(lengths: ArrayLike<number>, capacity: number): number[][] {
  const alone: number[][] = []
  const fitting: number[] = []
  let total = 0
  for (let i = 0; i < lengths.length; i++) {
    if (lengths[i]! >= capacity) {
      alone.push([i])
    } else {
      fitting.push(i)
      total += lengths[i]!
    }
  }
  // Longest first, ties by position: both heuristics below need it, and it keeps the result deterministic.
  fitting.sort((a, b) => lengths[b]! - lengths[a]! || a - b)
  const bins = spread(lengths, fitting, capacity, Math.ceil(total / capacity))
  return [...alone, ...bins.map((bin) => bin.sort((a, b) => a - b))].sort((a, b) => a[0]! - b[0]!)
}

/**
 * Tries each number of bins from the lower bound up: the longest example first into the emptiest bin (LPT, the even
 * packing), and where that overflows, best-fit decreasing as the tighter but uneven one.
 */
function spread(lengths: ArrayLike<number>, sorted: readonly number[], capacity: number, lowerBound: number) {
  if (sorted.length === 0) return []
  const tight = bestFit(lengths, sorted, capacity)
  for (let count = lowerBound; count < tight.length; count++) {
    const even = longestFirst(lengths, sorted, capacity, count)
    if (even) return even
  }
  return longestFirst(lengths, sorted, capacity, tight.length) ?? tight
}

function longestFirst(lengths: ArrayLike<number>, sorted: readonly number[], capacity: number, count: number) {
  const bins: number[][] = Array.from({ length: count }, () => [])
  const fill = new Float64Array(count)
  for (const index of sorted) {
    let emptiest = 0
    for (let bin = 1; bin < count; bin++) if (fill[bin]! < fill[emptiest]!) emptiest = bin
    fill[emptiest]! += lengths[index]!
    if (fill[emptiest]! > capacity) return undefined
    bins[emptiest]!.push(index)
  }
  return bins
}

function bestFit(lengths: ArrayLike<number>, sorted: readonly number[], capacity: number): number[][] {
  const bins: number[][] = []
  const room: number[] = []
  for (const index of sorted) {
    let best = -1
    for (let bin = 0; bin < bins.length; bin++) {
      if (room[bin]! >= lengths[index]! && (best < 0 || room[bin]! < room[best]!)) best = bin
    }
    if (best < 0) {
      best = bins.length
      bins.push([])
      room.push(capacity)
    }
    bins[best]!.push(index)
    room[best]! -= lengths[index]!
  }
  return bins
}
