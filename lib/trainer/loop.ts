/** The optimizer steps of a run: while the native side computes one step, the next is packed here. */
import type { ExampleSet } from '../batch/example-set.ts'
import type { PackingSums } from '../batch/packing.ts'
import { buildStep, type Step } from '../batch/steps.ts'
import { place } from '../data/source.ts'
import { TunesmithError } from '../errors.ts'
import type { NativeEngine } from '../native/addon.ts'
import { type CourseStep, course } from './course.ts'
import type { StepEvent } from './events.ts'
import type { ResolvedOptions } from './options.ts'
import { learningRateAt, type Schedule } from './schedule.ts'

/** What one step did, without the times. */
export type StepOutcome = Omit<StepEvent, 'tokensPerSecond' | 'microBatches'> & { packing: PackingSums }

export interface Loop {
  engine: Pick<NativeEngine, 'accumulate' | 'optimizerStep'>
  set: ExampleSet
  options: Pick<
    ResolvedOptions,
    | 'epochs'
    | 'maxSteps'
    | 'batch'
    | 'shuffle'
    | 'seed'
    | 'microBatchTokens'
    | 'betas'
    | 'epsilon'
    | 'momentum'
    | 'weightDecay'
    | 'maxGradNorm'
  >
  schedule: Schedule
}

/**
 * Runs the steps one by one; the consumer decides between them what else to do.
 *
 * @throws TunesmithError `ERR_NON_FINITE_LOSS`, `ERR_NON_FINITE_GRADIENT` before the weights are touched;
 * `ERR_CANCELLED` once the engine was cancelled
 */
export async function* trainingSteps(loop: Loop): AsyncGenerator<StepOutcome> {
  const { set, options } = loop
  const steps = course(set, options)
  let next = prepared(steps.next())
  while (next) {
    const current = next
    const running = runStep(loop, current)
    // A failure here must not leave the running step's own failure unheard.
    running.catch(() => undefined)
    next = prepared(steps.next())
    yield await running
  }

  function prepared(result: IteratorResult<CourseStep>): { course: CourseStep; step: Step } | undefined {
    if (result.done) return undefined
    return { course: result.value, step: buildStep(set, result.value.conversations, options.microBatchTokens) }
  }
}

async function runStep(
  { engine, set, options, schedule }: Loop,
  { course, step }: { course: CourseStep; step: Step },
): Promise<StepOutcome> {
  const random = { seed: options.seed, step: course.number }
  // All are posted at once: the engine works through them without waiting for this thread in between.
  const sums = await Promise.all(
    step.microBatches.map((batch, index) => engine.accumulate(batch, step.weightSum, index === 0, random)),
  )
  let loss = 0
  for (const sum of sums) loss += sum.loss
  loss /= step.weightSum
  const rows = () => [...course.conversations].map((index) => place(set.examples[set.starts[index]!]!.source))
  if (!Number.isFinite(loss)) throw nonFinite('ERR_NON_FINITE_LOSS', 'loss', loss, course.number, rows())
  const learningRate = learningRateAt(course.number - 1, schedule)
  const { gradNorm, applied } = await engine.optimizerStep({
    learningRate,
    beta1: options.betas[0],
    beta2: options.betas[1],
    epsilon: options.epsilon,
    momentum: options.momentum,
    weightDecay: options.weightDecay,
    maxGradNorm: options.maxGradNorm,
    step: course.number,
  })
  if (!applied) throw nonFinite('ERR_NON_FINITE_GRADIENT', 'gradient norm', gradNorm, course.number, rows())
  return {
    step: course.number,
    steps: schedule.totalSteps,
    epoch: course.epoch,
    loss,
    learningRate,
    gradNorm,
    supervisedTokens: step.supervisedTokens,
    totalTokens: step.tokens,
    packing: step.packing,
  }
}

function nonFinite(code: string, what: string, value: number, step: number, rows: string[]): TunesmithError {
  const shown = rows.length > 5 ? `${rows.slice(0, 5).join(', ')} and ${rows.length - 5} more` : rows.join(', ')
  return new TunesmithError(
    code,
    `the ${what} of step ${step} is ${value}; the step was not applied. Its conversations: ${shown}. ` +
      'Lower learningRate, or look for damaged text in these rows.',
  )
}
