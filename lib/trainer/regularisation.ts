/** What is minimised, and what a training step does at random: options, defaults and their native form. */
import type { Objective, RandomOptions } from '../native/addon.ts'

export interface RegularisationOptions {
  /**
   * 'cross-entropy', or 'dft': cross-entropy weighed by the probability of each target, which is taken as a constant (arXiv
   * 2508.05629; by its authors for reasoning data, not in place of SFT elsewhere). Default 'cross-entropy'.
   */
  loss?: 'cross-entropy' | 'dft' | undefined
  /** Probability that the target shares evenly with the whole vocabulary, as in PyTorch, 0 to below 1. Default 0. */
  labelSmoothing?: number | undefined
  /** Adds zLoss · (log Σ exp(logits))² to the loss of each token (arXiv 2204.02311: 1e-4). Default 0. */
  zLoss?: number | undefined
  /**
   * Uniform noise on the embeddings while training, ± neftuneAlpha / √(tokens of the conversation · hidden size) (NEFTune,
   * arXiv 2310.05914: 5 to 15). Default 0.
   */
  neftuneAlpha?: number | undefined
  /** Share of the embeddings that a training step drops (`embd_pdrop` of GPT-2), 0 to below 1. Default 0. */
  embeddingDropout?: number | undefined
  /**
   * Share of what attention and MLP add to the residual stream that a training step drops (`resid_pdrop` of GPT-2), 0 to
   * below 1; or [first layer, last layer], rising evenly between them. Default 0.
   */
  residualDropout?: number | [number, number] | undefined
}

export interface ResolvedRegularisation {
  loss: 'cross-entropy' | 'dft'
  labelSmoothing: number
  zLoss: number
  neftuneAlpha: number
  embeddingDropout: number
  /** In the first and in the last layer. */
  residualDropout: [number, number]
}

export function resolveRegularisation(options: RegularisationOptions): ResolvedRegularisation {
  const { residualDropout = 0 } = options
  return {
    loss: options.loss ?? 'cross-entropy',
    labelSmoothing: options.labelSmoothing ?? 0,
    zLoss: options.zLoss ?? 0,
    neftuneAlpha: options.neftuneAlpha ?? 0,
    embeddingDropout: options.embeddingDropout ?? 0,
    residualDropout: typeof residualDropout === 'number' ? [residualDropout, residualDropout] : residualDropout,
  }
}

/** For the engine; empty where nothing differs from plain training, which then costs nothing. */
export function engineRegularisation(options: ResolvedRegularisation): {
  objective?: Objective
  random?: RandomOptions
} {
  const { loss, labelSmoothing, zLoss, neftuneAlpha, embeddingDropout, residualDropout } = options
  const plain = loss === 'cross-entropy' && labelSmoothing === 0 && zLoss === 0
  const random = neftuneAlpha > 0 || embeddingDropout > 0 || residualDropout.some((rate) => rate > 0)
  return {
    ...(!plain && { objective: { labelSmoothing, zLoss, dft: loss === 'dft' } }),
    ...(random && {
      random: { neftuneAlpha, embeddingDropout, residualDropout: Float64Array.from(residualDropout) },
    }),
  }
}
