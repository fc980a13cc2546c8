/** The prepared conversations of one side (training or evaluation), stored compactly: what steps and packing draw from. */
import type { Example, Source } from '../data/conversation.ts'
import type { Part } from './mixture.ts'

/**
 * Conversations as examples. Nearly always one example per conversation; a conversation that had to be split (a template
 * that rewrites history) has several, which stay in one step and count as one.
 */
export interface ExampleSet {
  /** All examples, those of one conversation side by side. */
  examples: Example[]
  /** [conversations + 1] first example of each conversation, and the number of examples. */
  starts: Uint32Array
  /** Tokens of all examples. */
  tokens: number
  /** Of those, tokens that carry loss. */
  supervisedTokens: number
  /** [examples] tokens that carry loss. */
  supervised: Uint32Array
  /** Index into `examples` of the longest one. */
  longest: number
  /** Of a mixture: its entries, one after another. Absent where an epoch uses every conversation once. */
  parts?: readonly Part[]
}

/** Number of conversations. */
export function conversationCount(set: ExampleSet): number {
  return set.starts.length - 1
}

/** Targets that carry loss: the first token of a sequence is nobody's target, so its weight does not count. */
export function countSupervised(weights: Float32Array): number {
  let count = 0
  for (let i = 1; i < weights.length; i++) if (weights[i]! > 0) count++
  return count
}

/** Builds a set from conversations, each the list of its examples. Empty conversations are left out. */
export function exampleSet(conversations: Iterable<readonly Example[]>): ExampleSet {
  const examples: Example[] = []
  const starts: number[] = []
  for (const pieces of conversations) {
    if (pieces.length === 0) continue
    starts.push(examples.length)
    for (const piece of pieces) examples.push(piece)
  }
  starts.push(examples.length)
  const supervised = Uint32Array.from(examples, ({ weights }) => countSupervised(weights))
  let tokens = 0
  let supervisedTokens = 0
  let longest = 0
  for (const [index, { ids }] of examples.entries()) {
    tokens += ids.length
    supervisedTokens += supervised[index]!
    if (ids.length > examples[longest]!.ids.length) longest = index
  }
  return { examples, starts: Uint32Array.from(starts), tokens, supervisedTokens, supervised, longest }
}

/** Memory is handed out in slabs of this many tokens (4 MiB per array): 100,000 rows make some dozen buffers. */
const SLAB_TOKENS = 1 << 20

/** Makes examples whose arrays are views of a few large buffers, instead of two buffers per conversation. */
export class ExamplePool {
  #ids = new Int32Array(0)
  #weights = new Float32Array(0)
  #used = 0

  /** Copies `ids` and `weights` (of the same length) into the pool. */
  add(ids: ArrayLike<number>, weights: ArrayLike<number>, source: Source): Example {
    const length = ids.length
    if (this.#used + length > this.#ids.length) {
      const size = Math.max(SLAB_TOKENS, length)
      this.#ids = new Int32Array(size)
      this.#weights = new Float32Array(size)
      this.#used = 0
    }
    const end = this.#used + length
    const example: Example = {
      ids: this.#ids.subarray(this.#used, end),
      weights: this.#weights.subarray(this.#used, end),
      source,
    }
    example.ids.set(ids)
    example.weights.set(weights)
    this.#used = end
    return example
  }
}
