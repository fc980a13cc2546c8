/** Log-probabilities of answers under a model, in micro-batches without padding. */
import { collate } from '../batch/collate.ts'
import type { Example } from '../data/conversation.ts'
import type { NativeEngine } from '../native/addon.ts'
import type { TokenizedPair } from './tokenize.ts'

/** Natural logarithms. */
export interface PairLogProbs {
  /** Sum over the answer's tokens. */
  chosen: number
  rejected: number
  /** Of each token of the answer, the one that ends its turn included. */
  chosenTokens: Float64Array
  rejectedTokens: Float64Array
}

/** What the largest micro-batch needs. */
export function scoreLimits(pairs: readonly TokenizedPair[], microBatchTokens: number) {
  const limits = { maxTokens: 0, maxSupervised: 0, maxSequences: 0 }
  for (const batch of microBatches(pairs, microBatchTokens)) {
    const tokens = batch.reduce((sum, { ids }) => sum + ids.length, 0)
    const supervised = batch.reduce((sum, { ids, promptTokens }) => sum + ids.length - promptTokens, 0)
    limits.maxTokens = Math.max(limits.maxTokens, tokens)
    limits.maxSupervised = Math.max(limits.maxSupervised, supervised)
    limits.maxSequences = Math.max(limits.maxSequences, batch.length)
  }
  return limits
}

/** The log-probabilities of each pair, in their order. */
export async function* scorePairs(
  engine: Pick<NativeEngine, 'evaluate'>,
  pairs: readonly TokenizedPair[],
  microBatchTokens: number,
): AsyncGenerator<PairLogProbs> {
  let chosen: Float64Array | undefined
  for (const batch of microBatches(pairs, microBatchTokens)) {
    const { nll } = await engine.evaluate(collate(batch.map(example)))
    let at = 0
    for (const { ids, promptTokens } of batch) {
      const tokens = nll!.slice(at, at + ids.length - promptTokens).map((value) => -value)
      at += tokens.length
      if (chosen === undefined) {
        chosen = tokens
        continue
      }
      yield { chosen: sum(chosen), rejected: sum(tokens), chosenTokens: chosen, rejectedTokens: tokens }
      chosen = undefined
    }
  }
}

interface Answer {
  ids: Int32Array
  promptTokens: number
}

/** Answers in order, chosen before rejected, filled up to the budget; a longer one is alone. */
function* microBatches(pairs: readonly TokenizedPair[], budget: number): Generator<Answer[]> {
  let batch: Answer[] = []
  let tokens = 0
  for (const { chosen, rejected, promptTokens } of pairs)
    for (const ids of [chosen, rejected]) {
      if (batch.length > 0 && tokens + ids.length > budget) {
        yield batch
        batch = []
        tokens = 0
      }
      batch.push({ ids, promptTokens })
      tokens += ids.length
    }
  if (batch.length > 0) yield batch
}

function example({ ids, promptTokens }: Answer): Example {
  const weights = new Float32Array(ids.length).fill(1, promptTokens)
  return { ids, weights, source: { file: '', line: 0 } }
}

function sum(values: Float64Array): number {
  let total = 0
  for (const value of values) total += value
  return total
}
