/** The course of a run: which conversations each optimizer step takes, epoch after epoch. */
import type { ExampleSet } from '../batch/example-set.ts'
import { epochDraw } from '../batch/mixture.ts'
import { addPacking, noPacking, type PackingSums } from '../batch/packing.ts'
import { planPacking, planSteps, type StepSize } from '../batch/steps.ts'

export interface CourseOptions {
  /** Passes over the data; may be a fraction, or Infinity with maxSteps. */
  epochs: number
  maxSteps?: number
  batch: StepSize
  shuffle: boolean
  seed: number
}

/** One step of the course. */
export interface CourseStep {
  /** From 1. */
  number: number
  /** Epochs done after it, a fraction. */
  epoch: number
  /** Indices into the set. */
  conversations: Uint32Array
}

/** Every step of the run in order. Lazy: an epoch's order is made when it is reached. */
export function* course(set: ExampleSet, options: CourseOptions): Generator<CourseStep> {
  const limit = options.maxSteps ?? Number.POSITIVE_INFINITY
  let number = 0
  for (let epoch = 0; epoch < options.epochs && number < limit; epoch++) {
    const order = epochDraw(set, { seed: options.seed, epoch, shuffle: options.shuffle })
    const steps = planSteps(set, order, options.batch)
    // A fraction of an epoch is that share of its steps, at least one.
    const share = Math.min(1, options.epochs - epoch)
    const count = share === 1 ? steps.length : Math.max(1, Math.round(steps.length * share))
    for (let i = 0; i < count && number < limit; i++) {
      number++
      yield { number, epoch: epoch + (i + 1) / steps.length, conversations: steps[i]! }
    }
  }
}

export interface CourseLength {
  steps: number
  /** Steps of the first epoch. */
  stepsPerEpoch: number
  /** Epochs done at the end, a fraction where the run stops inside one. */
  epochs: number
  /** Of the first epoch, or of the run where it is shorter. */
  packing: PackingSums
}

/** Length of the run. Epochs may differ in steps under a token budget, so each is counted. */
export function courseLength(set: ExampleSet, options: CourseOptions & { microBatchTokens: number }): CourseLength {
  const order = epochDraw(set, { seed: options.seed, epoch: 0, shuffle: options.shuffle })
  const stepsPerEpoch = planSteps(set, order, options.batch).length
  let last: CourseStep | undefined
  let packing = noPacking
  for (const step of course(set, options)) {
    last = step
    if (step.number <= stepsPerEpoch)
      packing = addPacking(packing, planPacking(set, step.conversations, options.microBatchTokens))
  }
  return { steps: last?.number ?? 0, stepsPerEpoch, epochs: last?.epoch ?? 0, packing }
}
