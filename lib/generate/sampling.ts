/**
 * Choosing the next token from logits. What may be chosen is narrowed as Transformers does it, in its order: repetition
 * penalty, temperature, top-k, top-p, min-p.
 */
import { philox } from '../batch/sampler.ts'
import { TunesmithError } from '../errors.ts'

export interface SamplingOptions {
  /** 0 = greedy: the most likely token, the first of equals. Default 0. */
  temperature?: number | undefined
  /** Keep the so many most likely tokens, and those equal to the last of them; 0 = all. Default 0. */
  topK?: number | undefined
  /** Keep the most likely tokens whose probabilities together reach this, 0 to 1 (arXiv 1904.09751). Default 1: all. */
  topP?: number | undefined
  /** Keep tokens at least this share as likely as the most likely one, 0 to 1 (arXiv 2407.01082). Default 0: all. */
  minP?: number | undefined
  /**
   * Divides positive logits of tokens that prompt or completion have, and multiplies negative ones (arXiv 1909.05858);
   * above 1 discourages repetition. Default 1: none.
   */
  repetitionPenalty?: number | undefined
  /** Draws are a function of the seed and the position alone. Default 42. */
  seed?: number | undefined
}

/** Names this stream among those that other parts derive from the same seed. */
const SAMPLING_STREAM = 0x73616d70

const none: ReadonlySet<number> = new Set()

/**
 * The token chosen from `logits` [V] for the draw numbered `index`. `seen`: ids of the prompt and of what was generated.
 *
 * @throws TunesmithError `ERR_NON_FINITE_LOGITS`
 */
export function sampleToken(
  logits: Float32Array,
  options: SamplingOptions,
  index: number,
  seen: ReadonlySet<number> = none,
): number {
  const { temperature = 0, seed = 42 } = options
  if (temperature === 0) return argmax(penalised(logits, options, seen))
  const weights = samplingWeights(logits, options, seen)
  const key = [seed % 2 ** 32, Math.floor(seed / 2 ** 32)] as const
  const [high, low] = philox(key, [index, 0, 0, SAMPLING_STREAM])
  let left = (high * 2 ** 21 + (low >>> 11)) * 2 ** -53 * sum(weights)
  let last = 0
  for (let id = 0; id < weights.length; id++) {
    if (weights[id] === 0) continue
    last = id
    left -= weights[id]!
    if (left < 0) break
  }
  return last
}

/** [V] what each token is drawn in proportion to; 0 where it cannot be drawn. Of the most likely token 1. */
export function samplingWeights(
  logits: Float32Array,
  options: SamplingOptions,
  seen: ReadonlySet<number> = none,
): Float64Array {
  const { temperature = 1, topK = 0, topP = 1, minP = 0 } = options
  const scores = penalised(logits, options, seen)
  const top = scores[argmax(scores)]!
  const weights = Float64Array.from(scores, (score) => Math.exp((score - top) / temperature))
  if (topK > 0 && topK < weights.length) keepFrom(weights, largest(weights, topK))
  if (topP < 1) keepNucleus(weights, topP)
  if (minP > 0) keepFrom(weights, minP)
  return weights
}

function penalised(
  logits: Float32Array,
  { repetitionPenalty = 1 }: SamplingOptions,
  seen: ReadonlySet<number>,
): Float32Array | Float64Array {
  if (repetitionPenalty === 1) return logits
  const scores = Float64Array.from(logits)
  for (const id of seen) scores[id]! *= scores[id]! < 0 ? repetitionPenalty : 1 / repetitionPenalty
  return scores
}

function keepFrom(weights: Float64Array, least: number): void {
  for (let id = 0; id < weights.length; id++) if (weights[id]! < least) weights[id] = 0
}

/** Above this many, sorting all is faster than keeping the largest in order. */
const fewLargest = 1024

/** The `count`-th largest of `values`. */
function largest(values: Float64Array, count: number): number {
  if (count > fewLargest) return Float64Array.from(values).sort()[values.length - count]!
  // The largest so far, in rising order: nearly all values are below the first and cost one comparison.
  const kept = new Float64Array(count).fill(Number.NEGATIVE_INFINITY)
  for (const value of values) {
    if (value <= kept[0]!) continue
    let at = 1
    for (; at < count && kept[at]! < value; at++) kept[at - 1] = kept[at]!
    kept[at - 1] = value
  }
  return kept[0]!
}

/** Keeps the fewest tokens, most likely first, that together have `share` of the whole. */
function keepNucleus(weights: Float64Array, share: number): void {
  const total = sum(weights)
  // What is below this has less than 1 - share even together: it need not be sorted.
  const negligible = ((1 - share) * total) / weights.length
  const order: number[] = []
  for (let id = 0; id < weights.length; id++) if (weights[id]! >= negligible) order.push(id)
  order.sort((a, b) => weights[b]! - weights[a]! || a - b)
  const kept: [number, number][] = []
  let mass = 0
  for (const id of order) {
    if (kept.length > 0 && mass >= share * total) break
    kept.push([id, weights[id]!])
    mass += weights[id]!
  }
  weights.fill(0)
  for (const [id, weight] of kept) weights[id] = weight
}

function sum(values: Float64Array): number {
  let total = 0
  for (const value of values) total += value
  return total
}

function argmax(values: Float32Array | Float64Array): number {
  let best = 0
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i
  if (Number.isFinite(values[best])) return best
  throw new TunesmithError(
    'ERR_NON_FINITE_LOGITS',
    `the model's most likely token has the logit ${values[best]}: its weights have diverged, or are damaged`,
  )
}
