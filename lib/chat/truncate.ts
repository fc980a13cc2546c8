/** What is kept of a row that is longer than maxLength, by where it is cut. Pure functions over ids and weights. */
import type { WeightedTokens } from './weights.ts'

/** 'turns' after the last trained turn that fits whole, 'right' keeps the beginning, 'left' the end. */
export type Truncation = 'turns' | 'right' | 'left'

export interface Truncated extends WeightedTokens {
  /** Tokens that were cut off, and those of them that carried loss. */
  lostTokens: number
  lostSupervisedTokens: number
  /** Of `lostTokens`, those before what is kept; a bos that is kept stands before them. */
  lostBefore: number
  /** Trained turns that lost their stop token and kept something else: they no longer teach to stop. */
  unstopped: number
}

/**
 * `tokens` in at most `maxLength` tokens; undefined where no token that carries loss is left.
 *
 * @param bos id of the token that a text begins with, which 'left' keeps where it stands
 */
export function truncate(
  tokens: WeightedTokens,
  maxLength: number,
  how: Truncation,
  bos?: number,
): Truncated | undefined {
  const { ids, weights } = tokens
  if (ids.length <= maxLength) return { ...tokens, lostTokens: 0, lostSupervisedTokens: 0, lostBefore: 0, unstopped: 0 }
  const kept =
    how === 'left'
      ? end(tokens, maxLength, bos)
      : beginning(tokens, how === 'turns' ? lastFit(tokens, maxLength) : maxLength)
  const supervised = supervisedTokens(kept.weights)
  if (supervised === 0) return undefined
  return {
    ...kept,
    lostTokens: ids.length - kept.ids.length,
    lostSupervisedTokens: supervisedTokens(weights) - supervised,
  }
}

/** Where the last trained turn ends that lies whole in the first `maxLength` tokens; 0 where none does. */
function lastFit({ turns }: WeightedTokens, maxLength: number): number {
  return turns.reduce((last, turn) => (turn.end <= maxLength ? Math.max(last, turn.end) : last), 0)
}

type Kept = WeightedTokens & Pick<Truncated, 'lostBefore' | 'unstopped'>

function beginning({ ids, weights, straddling, turns }: WeightedTokens, length: number): Kept {
  const cut = weights.slice(0, length)
  const inside = turns.filter((turn) => turn.first < length)
  return {
    ids: ids.slice(0, length),
    weights: cut,
    straddling,
    turns: inside.map((turn) => ({ ...turn, end: Math.min(turn.end, length) })),
    lostBefore: 0,
    unstopped: inside.filter((turn) => turn.end > length && supervisedTokens(cut.subarray(turn.first)) > 0).length,
  }
}

function end({ ids, weights, straddling, turns }: WeightedTokens, length: number, bos: number | undefined): Kept {
  const keepsBos = bos !== undefined && ids[0] === bos && length > 1
  const shift = ids.length - length
  const start = shift + (keepsBos ? 1 : 0)
  const keptIds = ids.slice(shift)
  const keptWeights = weights.slice(shift)
  if (keepsBos) keptIds[0] = bos
  // Nothing predicts the first token.
  keptWeights[0] = 0
  return {
    ids: keptIds,
    weights: keptWeights,
    straddling,
    turns: turns
      .filter((turn) => turn.end > start)
      .map((turn) => ({ ...turn, first: Math.max(turn.first, start) - shift, end: turn.end - shift })),
    lostBefore: shift,
    unstopped: 0,
  }
}

function supervisedTokens(weights: Float32Array): number {
  let count = 0
  for (const weight of weights) if (weight > 0) count++
  return count
}
