/** Time to the end of a run, from the steps behind it. Evaluations between steps count, because more will come. */
import { duration } from './format.ts'

export class TimeLeft {
  private steps = 0
  private started = 0
  private readonly now: () => number

  constructor(now: () => number = () => performance.now()) {
    this.now = now
  }

  /** When the first step begins; the evaluation before it comes once only, so it must not count. */
  start(steps = this.steps): void {
    this.steps = steps
    this.started = this.now()
  }

  /** E.g. '1m 05s left'; the mean over all steps so far is steadier than the last one. */
  after(step: number): string {
    const elapsed = (this.now() - this.started) / 1000
    return `${duration(Math.round((elapsed / step) * Math.max(0, this.steps - step)))} left`
  }
}
