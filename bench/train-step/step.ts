/** The step both sides of bench/train-step take: its hyperparameters, its tokens, and the answers of a side. */
import type { MicroBatch, OpTime } from '../../lib/native/addon.ts'

/** As in torch_step.py. */
export const optimizerStep = {
  learningRate: 1e-4,
  beta1: 0.9,
  beta2: 0.999,
  epsilon: 1e-8,
  weightDecay: 0.1,
  maxGradNorm: 1,
}

export type Case = 'all' | 'half'

/** [B, L] each; the weight of a token as a target, 0 or 1. */
export interface Batch {
  tokens: number[][]
  weights: number[][]
}

export interface Hello {
  ready: true
  parameters: number
  version: string
}

export interface Check {
  loss: number
  gradNorm: number
}

export interface Steps {
  seconds: number[]
  loss: number
}

export interface Peak {
  /** Bytes: VmHWM, loading included. */
  peak: number
}

export type Profile = { ops: OpTime[] }

/** Random tokens in conversations of equal length, so that PyTorch has no padding to pay for. `half`: the second half. */
export function makeBatch(which: Case, sequences: number, length: number, vocabSize: number): Batch {
  let state = 1
  const next = () => {
    // Numerical Recipes' linear congruential generator; its upper bits.
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * vocabSize)
  }
  const tokens = Array.from({ length: sequences }, () => Array.from({ length }, next))
  const weights = tokens.map((row) => row.map((_, index) => (which === 'all' || index >= length / 2 ? 1 : 0)))
  return { tokens, weights }
}

/** Σ weight of a micro-batch. */
export function weightSum({ weights }: MicroBatch): number {
  return weights.reduce((sum, weight) => sum + weight, 0)
}
