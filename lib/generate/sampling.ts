/** Choosing the next token from logits. */
import { philox } from '../batch/sampler.ts'

export interface SamplingOptions {
  /** 0 = greedy: the most likely token, the first of equals. Default 0. */
  temperature?: number | undefined
  /** Keep the most likely tokens whose probabilities together reach this, 0 to 1. Default 1: all. */
  topP?: number | undefined
  /** Draws are a function of the seed and the position alone. Default 42. */
  seed?: number | undefined
}

/** Names this stream among those that other parts derive from the same seed. */
const SAMPLING_STREAM = 0x73616d70

/** The token chosen from `logits` [V] for the draw numbered `index`. */
export function sampleToken(logits: Float32Array, options: SamplingOptions, index: number): number {
  const { temperature = 0, topP = 1, seed = 42 } = options
  if (temperature === 0) return argmax(logits)
  const largest = logits[argmax(logits)]!
  const weights = Float64Array.from(logits, (logit) => Math.exp((logit - largest) / temperature))
  const order = Array.from(weights.keys())
  if (topP < 1) order.sort((a, b) => weights[b]! - weights[a]! || a - b)
  let total = 0
  for (const weight of weights) total += weight
  let kept = order.length
  let mass = total
  if (topP < 1) {
    mass = 0
    for (kept = 0; kept < order.length && (kept === 0 || mass < topP * total); kept++) mass += weights[order[kept]!]!
  }
  const key = [seed % 2 ** 32, Math.floor(seed / 2 ** 32)] as const
  const [high, low] = philox(key, [index, 0, 0, SAMPLING_STREAM])
  let left = (high * 2 ** 21 + (low >>> 11)) * 2 ** -53 * mass
  for (let i = 0; i < kept; i++) {
    left -= weights[order[i]!]!
    if (left < 0) return order[i]!
  }
  return order[kept - 1]!
}

function argmax(values: Float32Array): number {
  let best = 0
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i
  return best
}
