/**
 * Packing inside a step: its examples are spread over as few micro-batches as `microBatchTokens` allows, and those are
 * made as even as they go. It changes memory and speed only; which conversations share a step is decided in steps.ts.
 */

/** How much fuller than the emptiest micro-batch one may be that is taken for its fewer rows with loss, of the capacity. */
const SLACK = 1 / 64

/**
 * Distributes examples of the given lengths (tokens) over micro-batches of at most `capacity` tokens. An example longer
 * than that gets a micro-batch of its own. Returns the examples' indices per micro-batch, ascending in each; the
 * micro-batches are ordered by their first example, so that the same step always packs alike.
 *
 * `supervised` are the examples' rows that carry loss, which cost the output projection on top of the decoder: of
 * micro-batches that are about equally full the one with fewer takes the next example.
 */
export function packStep(
  lengths: ArrayLike<number>,
  capacity: number,
  supervised: ArrayLike<number> = new Uint8Array(lengths.length),
): number[][] {
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
  const bins = spread({ lengths, supervised, capacity }, fitting, Math.ceil(total / capacity))
  return [...alone, ...bins.map((bin) => bin.sort((a, b) => a - b))].sort((a, b) => a[0]! - b[0]!)
}

/**
 * Tries each number of bins from the lower bound up: the longest example first into the emptiest bin (LPT, the even
 * packing), and where that overflows, best-fit decreasing as the tighter but uneven one.
 */
function spread(load: Load, sorted: readonly number[], lowerBound: number): number[][] {
  if (sorted.length === 0) return []
  const tight = bestFit(load, sorted)
  const { lengths, supervised, capacity } = load
  const grain = Math.max(1, SLACK * capacity)
  const grainOf = (index: number) => Math.floor(lengths[index]! / grain)
  // Of about equally long ones those with most loss first: what comes last has the least choice.
  const byLoss = sorted.toSorted((a, b) => grainOf(b) - grainOf(a) || supervised[b]! - supervised[a]! || a - b)
  for (let count = lowerBound; count <= tight.length; count++) {
    // Evenness in loss gives way where it costs a micro-batch.
    const even = longestFirst(load, byLoss, count, SLACK) ?? longestFirst(load, sorted, count, 0)
    if (even) return even
  }
  return tight
}

interface Load {
  lengths: ArrayLike<number>
  supervised: ArrayLike<number>
  capacity: number
}

function longestFirst(
  { lengths, supervised, capacity }: Load,
  sorted: readonly number[],
  count: number,
  slack: number,
) {
  const bins: number[][] = Array.from({ length: count }, () => [])
  const fill = new Float64Array(count)
  const rows = new Float64Array(count)
  for (const index of sorted) {
    const room = Math.min(...fill) + slack * capacity
    let chosen = -1
    for (let bin = 0; bin < count; bin++) {
      if (fill[bin]! > room) continue
      const better =
        chosen < 0 || rows[bin]! < rows[chosen]! || (rows[bin] === rows[chosen] && fill[bin]! < fill[chosen]!)
      if (better) chosen = bin
    }
    fill[chosen]! += lengths[index]!
    rows[chosen]! += supervised[index]!
    if (fill[chosen]! > capacity) return undefined
    bins[chosen]!.push(index)
  }
  return bins
}

function bestFit({ lengths, capacity }: Load, sorted: readonly number[]): number[][] {
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
