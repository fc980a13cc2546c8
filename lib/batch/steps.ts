/**
 * From an epoch's order to optimizer steps, and from a step to its micro-batches. `batchSize` counts conversations per
 * step, `batchTokens` fills each step to a budget; the last step of an epoch keeps what is left, however little.
 */

import { place } from '../data/source.ts'
import { TunesmithError } from '../errors.ts'
import type { MicroBatch } from '../native/addon.ts'
import { collate } from './collate.ts'
import { conversationCount, type ExampleSet } from './example-set.ts'
import { packStep } from './pack.ts'
import { type PackingSums, packingSums } from './packing.ts'

/** What fills one optimizer step. */
export type StepSize = { conversations: number } | { tokens: number }

/** One optimizer step, ready for the native side. */
export interface Step {
  microBatches: MicroBatch[]
  /** Σ weight over all targets of the step: the divisor of its loss. */
  weightSum: number
  /** Conversations; pieces of a split one count once. */
  conversations: number
  tokens: number
  /** Targets that carry loss. */
  supervisedTokens: number
  packing: PackingSums
}

/** Largest micro-batch that can come, for the memory plan. */
export interface MicroBatchLimits {
  tokens: number
  /** Rows that carry loss. */
  supervised: number
  /** Sequences. */
  sequences: number
}

/**
 * Cuts an epoch's order (conversation indices) into steps. With a token budget a step takes conversations in order
 * until the next one would exceed it; one that is longer than the budget is a step of its own.
 */
export function planSteps(set: ExampleSet, order: Uint32Array, size: StepSize): Uint32Array[] {
  const steps: Uint32Array[] = []
  if ('conversations' in size) {
    for (let i = 0; i < order.length; i += size.conversations) steps.push(order.subarray(i, i + size.conversations))
    return steps
  }
  let start = 0
  let tokens = 0
  for (let i = 0; i < order.length; i++) {
    const length = conversationTokens(set, order[i]!)
    if (i > start && tokens + length > size.tokens) {
      steps.push(order.subarray(start, i))
      start = i
      tokens = 0
    }
    tokens += length
  }
  if (start < order.length) steps.push(order.subarray(start))
  return steps
}

/**
 * Packs and collates one step.
 *
 * @throws TunesmithError `ERR_NO_SUPERVISED_TOKENS` when no token of the step carries loss; names its rows.
 */
export function buildStep(set: ExampleSet, conversations: Uint32Array, microBatchTokens: number): Step {
  const indices = examplesOf(set, conversations)
  const microBatches = packIndices(set, indices, microBatchTokens)
  let weightSum = 0
  let tokens = 0
  let supervisedTokens = 0
  for (const { weights } of microBatches) {
    tokens += weights.length
    for (const weight of weights) {
      weightSum += weight
      if (weight > 0) supervisedTokens++
    }
  }
  if (supervisedTokens === 0) {
    const rows = indices.map((index) => place(set.examples[index]!.source))
    const shown = rows.length > 5 ? `${rows.slice(0, 5).join(', ')} and ${rows.length - 5} more` : rows.join(', ')
    throw new TunesmithError(
      'ERR_NO_SUPERVISED_TOKENS',
      `No token of this step carries loss (${shown}): its loss would be 0/0. Remove these rows or give their turns a weight.`,
    )
  }
  const packing = packingSums(microBatches.map(({ cuSeqlens }) => lengthsBetween(cuSeqlens)))
  return { microBatches, weightSum, conversations: conversations.length, tokens, supervisedTokens, packing }
}

function lengthsBetween(cuSeqlens: Int32Array): Int32Array {
  return cuSeqlens.subarray(1).map((end, index) => end - cuSeqlens[index]!)
}

/** How buildStep would pack. */
export function planPacking(set: ExampleSet, conversations: Uint32Array, microBatchTokens: number): PackingSums {
  const indices = examplesOf(set, conversations)
  const lengths = indices.map((index) => set.examples[index]!.ids.length)
  return packingSums(binsOf(set, indices, microBatchTokens).map((bin) => bin.map((i) => lengths[i]!)))
}

function examplesOf(set: ExampleSet, conversations: Uint32Array): number[] {
  const indices: number[] = []
  for (const conversation of conversations) {
    for (let i = set.starts[conversation]!; i < set.starts[conversation + 1]!; i++) indices.push(i)
  }
  return indices
}

/** Conversations per window in which evaluation packs: enough for even micro-batches, few enough to make lazily. */
const EVAL_WINDOW = 256

/** The micro-batches of an evaluation set, in its order, made one after the other. */
export function* evalMicroBatches(set: ExampleSet, microBatchTokens: number): Generator<MicroBatch> {
  for (let start = 0; start < set.examples.length; start += EVAL_WINDOW) {
    const end = Math.min(start + EVAL_WINDOW, set.examples.length)
    const indices = Array.from({ length: end - start }, (_, i) => start + i)
    yield* packIndices(set, indices, microBatchTokens)
  }
}

/** Each example is numbered by its place in `indices`, wherever packing puts it. */
function packIndices(set: ExampleSet, indices: readonly number[], microBatchTokens: number): MicroBatch[] {
  return binsOf(set, indices, microBatchTokens).map((bin) => ({
    ...collate(bin.map((i) => set.examples[indices[i]!]!)),
    numbers: Int32Array.from(bin),
  }))
}

/** Positions in `indices` per micro-batch. */
function binsOf(set: ExampleSet, indices: readonly number[], microBatchTokens: number): number[][] {
  const lengths = indices.map((index) => set.examples[index]!.ids.length)
  return packStep(
    lengths,
    microBatchTokens,
    indices.map((index) => set.supervised[index]!),
  )
}

/**
 * Upper bounds of what one micro-batch of `set` can hold, whatever the shuffle. With `size` absent (evaluation) any
 * number of examples may meet. The bounds are tight for even data and never below what packing makes.
 */
export function microBatchLimits(set: ExampleSet, microBatchTokens: number, size?: StepSize): MicroBatchLimits {
  const lengths = Uint32Array.from(set.examples, ({ ids }) => ids.length)
  const conversationLengths = perConversation(set, (i) => lengths[i]!)
  let room = microBatchTokens
  // A step by tokens holds its budget or one conversation; a step by conversations the largest so many.
  let largest = (values: Uint32Array) => sumOfLargest(values, EVAL_WINDOW)
  if (size && 'conversations' in size) {
    largest = (values) => sumOfLargest(values, size.conversations)
  } else if (size) {
    room = Math.min(room, Math.max(size.tokens, maximum(conversationLengths)))
    largest = () => Number.POSITIVE_INFINITY
  }
  const supervised = perConversation(set, (i) => set.supervised[i]!)
  const pieces = perConversation(set, () => 1)
  return {
    tokens: Math.max(maximum(lengths), Math.min(room, set.tokens, largest(conversationLengths))),
    supervised: Math.max(
      maximum(set.supervised),
      Math.min(mostSupervised(lengths, set.supervised, room), largest(supervised)),
    ),
    sequences: Math.max(1, Math.min(mostSequences(lengths, room), largest(pieces))),
  }
}

function conversationTokens(set: ExampleSet, conversation: number): number {
  let tokens = 0
  for (let i = set.starts[conversation]!; i < set.starts[conversation + 1]!; i++) tokens += set.examples[i]!.ids.length
  return tokens
}

function perConversation(set: ExampleSet, value: (example: number) => number): Uint32Array {
  return Uint32Array.from({ length: conversationCount(set) }, (_, conversation) => {
    let sum = 0
    for (let i = set.starts[conversation]!; i < set.starts[conversation + 1]!; i++) sum += value(i)
    return sum
  })
}

function sumOfLargest(values: Uint32Array, count: number): number {
  const sorted = Uint32Array.from(values).sort()
  let sum = 0
  for (const value of sorted.subarray(Math.max(0, sorted.length - count))) sum += value
  return sum
}

function mostSequences(lengths: Uint32Array, room: number): number {
  const sorted = Uint32Array.from(lengths).sort()
  let count = 0
  let used = 0
  while (count < sorted.length && used + sorted[count]! <= room) used += sorted[count++]!
  return count
}

/** Fractional knapsack: no choice of examples within `room` tokens has more supervised ones. */
function mostSupervised(lengths: Uint32Array, supervised: Uint32Array, room: number): number {
  const order = Array.from(lengths, (_, i) => i).sort(
    (a, b) => supervised[b]! * lengths[a]! - supervised[a]! * lengths[b]!,
  )
  let sum = 0
  for (const index of order) {
    if (room <= 0) break
    const share = Math.min(1, room / lengths[index]!)
    sum += share * supervised[index]!
    room -= lengths[index]!
  }
  return Math.ceil(sum)
}

function maximum(values: Uint32Array): number {
  let result = 0
  for (const value of values) if (value > result) result = value
  return result
}
