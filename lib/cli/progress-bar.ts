/** Progress on a terminal: one bar at the bottom, and the lines that stay above it. */
import { SingleBar } from 'cli-progress'
import type { TrainerEmitter } from '../trainer/events.ts'
import type { Output, Streams } from './command.ts'
import { count } from './format.ts'
import type { Close } from './progress.ts'
import { endLine, evalLine, planLine, sampleLine, warningLine } from './progress-lines.ts'
import { TimeLeft } from './time-left.ts'

export function showBar(trainer: TrainerEmitter, { stdout, stderr }: Streams): Close {
  const bar = new Bar(stdout)
  const time = new TimeLeft()
  trainer.on('prepare', ({ stage, done, total }) => {
    const what = doing[stage]
    if (total === undefined) bar.show(`${what}  {tail}`, 0, 0, `${count(done)} rows`)
    else bar.show(`${what} {bar} {percentage} %`, done, total, '')
  })
  trainer.on('plan', (plan) => {
    bar.close()
    stdout.write(`${planLine(plan)}\n`)
  })
  trainer.on('start', ({ steps }) => {
    time.start(steps)
    bar.show(training, 0, steps, 'first step')
  })
  trainer.on('step', ({ step, steps, loss, tokensPerSecond }) => {
    const tail = `loss ${loss.toFixed(4)}  ${count(tokensPerSecond)} tok/s  ${time.after(step)}`
    bar.show(training, step, steps, tail)
  })
  trainer.on('eval', (event) => {
    bar.above(stdout, evalLine(event))
    if (event.step === 0) time.start()
  })
  trainer.on('sample', (event) => {
    bar.above(stdout, sampleLine(event))
    if (event.step === 0) time.start()
  })
  trainer.on('warning', (event) => bar.above(stderr, warningLine(event)))
  trainer.on('end', (result) => {
    bar.close()
    stdout.write(`${endLine(result)}\n`)
  })
  return () => bar.close()
}

const doing = { download: 'downloading', data: 'reading data', model: 'loading weights' }
const training = 'step {value}/{total} {bar} {percentage} %  {tail}'

/** One bar at a time. Another format ends the one before. */
class Bar {
  private readonly stream: Output
  private bar: SingleBar | undefined
  private state = { format: '', value: 0, total: 0, tail: '' }

  constructor(stream: Output) {
    this.stream = stream
  }

  show(format: string, value: number, total: number, tail: string): void {
    if (this.bar && this.state.format !== format) this.close()
    this.state = { format, value, total, tail }
    if (!this.bar) {
      this.open()
      return
    }
    this.bar.setTotal(total)
    this.bar.update(value, { tail })
  }

  /**
   * A line that stays, on `stream`. The bar is taken away before and drawn anew after: writing while it stands would
   * leave a piece of it behind, and cli-progress puts the cursor back to where the bar was opened.
   */
  above(stream: Output, line: string): void {
    const standing = this.bar !== undefined
    this.close()
    stream.write(`${line}\n`)
    if (standing) this.open()
  }

  close(): void {
    this.bar?.stop()
    this.bar = undefined
  }

  private open(): void {
    const { format, value, total, tail } = this.state
    this.bar = new SingleBar({
      stream: this.stream as NodeJS.WriteStream,
      format,
      barsize: 24,
      barCompleteChar: '█',
      barIncompleteChar: '░',
      hideCursor: true,
      clearOnComplete: true,
      emptyOnZero: true,
      fps: 10,
    })
    this.bar.start(total, value, { tail })
  }
}
