/**
 * The learning rate of each step: a linear rise from 0 over the warmup, then the schedule, as Transformers'
 * `get_scheduler` computes it ('linear', 'cosine' with half a period, 'constant_with_warmup'). With a minimum the curve
 * is scaled to end there, as its 'cosine_with_min_lr' and, for 'linear', its 'polynomial' of power 1 do.
 */
export interface Schedule {
  /** Optimizer steps of the whole run. */
  totalSteps: number
  warmupSteps: number
  schedule: 'cosine' | 'linear' | 'constant'
  /** Peak. */
  learningRate: number
  /** Where 'cosine' and 'linear' end; the warmup starts from 0 all the same. */
  minLearningRate: number
}

/** Learning rate of `step`, counted from 0. With a warmup the first step's rate is 0. */
export function learningRateAt(step: number, run: Schedule): number {
  const { totalSteps, warmupSteps, schedule, learningRate, minLearningRate } = run
  if (step < warmupSteps) return learningRate * (step / warmupSteps)
  if (schedule === 'constant') return learningRate
  const progress = (step - warmupSteps) / Math.max(1, totalSteps - warmupSteps)
  const share = schedule === 'linear' ? 1 - progress : 0.5 * (1 + Math.cos(Math.PI * progress))
  return minLearningRate + (learningRate - minLearningRate) * Math.max(0, share)
}

/** Steps of warmup: the number given, or the share of all steps rounded up, as Transformers does. */
export function warmupStepsOf(warmup: { ratio: number } | { steps: number }, totalSteps: number): number {
  return 'steps' in warmup ? warmup.steps : Math.ceil(totalSteps * warmup.ratio)
}
