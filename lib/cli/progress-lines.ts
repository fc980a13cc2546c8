/** Progress for pipes: readable lines, or JSON. Warnings go to stderr in both, in JSON also among the events. */
import type { Warning } from '../errors.ts'
import type { EvalEvent, FitResult, SampleEvent, StepEvent, TrainerEmitter, TrainingPlan } from '../trainer/events.ts'
import type { Streams } from './command.ts'
import { count, duration, percent, plural } from './format.ts'
import type { Close } from './progress.ts'
import { TimeLeft } from './time-left.ts'

export function showLines(trainer: TrainerEmitter, { stdout, stderr }: Streams, every = 1): Close {
  const time = new TimeLeft()
  trainer.on('plan', (plan) => stdout.write(`${planLine(plan)}\n`))
  trainer.on('start', ({ steps }) => time.start(steps))
  trainer.on('step', (event) => {
    const left = time.after(event.step)
    if (event.step % every === 0 || event.step === event.steps) stdout.write(`${stepLine(event)}  ${left}\n`)
  })
  trainer.on('eval', (event) => {
    stdout.write(`${evalLine(event)}\n`)
    if (event.step === 0) time.start()
  })
  trainer.on('sample', (event) => {
    stdout.write(`${sampleLine(event)}\n`)
    if (event.step === 0) time.start()
  })
  trainer.on('warning', (event) => stderr.write(`${warningLine(event)}\n`))
  trainer.on('end', (result) => stdout.write(`${endLine(result)}\n`))
  return () => {}
}

/** Milliseconds between two `prepare` events in JSON. */
const prepareInterval = 500

export function showJson(trainer: TrainerEmitter, { stdout, stderr }: Streams): Close {
  const print = (event: string, fields: object) => stdout.write(`${JSON.stringify({ event, ...fields })}\n`)
  for (const name of ['plan', 'start', 'step', 'eval', 'sample', 'checkpoint', 'warning'] as const)
    trainer.on(name, (fields: object) => print(name, fields))
  // These come by the thousand while a large file is read.
  let printed = Number.NEGATIVE_INFINITY
  trainer.on('prepare', (fields) => {
    const now = performance.now()
    if (fields.done !== fields.total && now - printed < prepareInterval) return
    printed = now
    print('prepare', fields)
  })
  trainer.on('warning', (event) => stderr.write(`${warningLine(event)}\n`))
  // The history has been printed already, event by event.
  trainer.on('end', ({ history: _, ...result }) => print('end', result))
  return () => {}
}

export function planLine(plan: TrainingPlan): string {
  const share = percent(plan.supervisedTokens / Math.max(1, plan.tokens))
  return [
    `${plural(plan.conversations, 'conversation')} of ${count(plan.tokens)} tokens, ${share} with loss`,
    `${plural(plan.steps, 'step')} in ${plural(plan.epochs, 'epoch')}`,
    `${plan.device} ${plan.precision}, ${plural(plan.threads, 'thread')}`,
  ].join('; ')
}

function stepLine(event: StepEvent): string {
  const { step, steps, epoch, loss, learningRate, gradNorm, tokensPerSecond } = event
  return [
    `step ${step}/${steps}`,
    `epoch ${epoch.toFixed(2)}`,
    `loss ${loss.toFixed(4)}`,
    `lr ${learningRate.toExponential(2)}`,
    `grad norm ${gradNorm.toPrecision(4)}`,
    `${count(tokensPerSecond)} tok/s`,
  ].join('  ')
}

export function evalLine({ step, loss, perplexity, tokenAccuracy }: EvalEvent): string {
  const accuracy = percent(tokenAccuracy)
  return `eval at step ${step}  loss ${loss.toFixed(4)}  perplexity ${perplexity.toPrecision(4)}  accuracy ${accuracy}`
}

/** On one line: what breaks it is written as JSON does. */
export function sampleLine({ step, prompt, text }: SampleEvent): string {
  const asked = typeof prompt === 'string' ? prompt : (prompt.at(-1)?.content ?? '')
  return `sample at step ${step}  ${JSON.stringify(asked)} → ${JSON.stringify(text)}`
}

export function warningLine({ code, message }: Warning): string {
  return `warning: ${message} [${code}]`
}

/** With the evaluation loss before and after where there is one: that of single steps goes up and down with their rows. */
export function endLine({ steps, seconds, loss, history, output }: FitResult): string {
  const before = history.evals[0]
  const after = history.evals.at(-1)
  const course =
    before && after
      ? `evaluation loss ${before.loss.toFixed(4)} → ${after.loss.toFixed(4)}`
      : `loss of the last ${loss.toFixed(4)}`
  return `${plural(steps, 'step')} in ${duration(seconds)}, ${course}; checkpoint in ${output}`
}
