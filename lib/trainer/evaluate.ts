/** Masked loss and token accuracy over an evaluation set. */
import type { ExampleSet } from '../batch/example-set.ts'
import { evalMicroBatches } from '../batch/steps.ts'
import { TunesmithError } from '../errors.ts'
import type { NativeEngine } from '../native/addon.ts'

export interface Evaluation {
  /** Σ weight·nll / Σ weight, nats per token. */
  loss: number
  perplexity: number
  /** Share of supervised tokens that are the most likely one. */
  tokenAccuracy: number
  supervisedTokens: number
}

/**
 * @throws TunesmithError `ERR_NON_FINITE_LOSS`
 */
export async function evaluate(
  engine: Pick<NativeEngine, 'evaluate'>,
  set: ExampleSet,
  microBatchTokens: number,
): Promise<Evaluation> {
  let loss = 0
  let weight = 0
  let supervised = 0
  let correct = 0
  for (const batch of evalMicroBatches(set, microBatchTokens)) {
    const sums = await engine.evaluate(batch)
    loss += sums.loss
    weight += sums.weight
    supervised += sums.supervised
    correct += sums.correct
  }
  const mean = loss / weight
  if (!Number.isFinite(mean)) {
    throw new TunesmithError(
      'ERR_NON_FINITE_LOSS',
      `the evaluation loss is ${mean}: the weights have diverged. Lower learningRate, or check that maxGradNorm is not 0.`,
    )
  }
  return { loss: mean, perplexity: Math.exp(mean), tokenAccuracy: correct / supervised, supervisedTokens: supervised }
}

/** Tells when an evaluation is due, from the interval the options give. */
export class EvalClock {
  readonly #every: { steps: number } | { seconds: number } | { epochs: number }
  #lastSeconds = 0
  #lastEpochs = 0

  constructor(every: { steps: number } | { seconds: number } | { epochs: number }) {
    this.#every = every
  }

  /** After each step; `seconds` since training began. */
  due(step: number, epoch: number, seconds: number): boolean {
    const every = this.#every
    if ('steps' in every) return step % every.steps === 0
    if ('seconds' in every) {
      if (seconds - this.#lastSeconds < every.seconds) return false
      this.#lastSeconds = seconds
      return true
    }
    // Fractions of an epoch are sums of 1/steps: a hair below the mark is the mark.
    if (epoch - this.#lastEpochs < every.epochs - 1e-9) return false
    this.#lastEpochs = Math.floor(epoch / every.epochs + 1e-9) * every.epochs
    return true
  }
}
