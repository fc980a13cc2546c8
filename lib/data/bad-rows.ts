/** Malformed rows: the error that names one, and the tally of those that were skipped. */
import { TunesmithError } from '../errors.ts'
import type { Source } from './conversation.ts'
import type { RowProblem } from './rows.ts'
import { place } from './source.ts'

export type BadRowPolicy = 'error' | 'skip'

/** As many places as a message names. */
export const EXAMPLES = 5

/** Why rows were left out, where they are bad: the reason among the counts. */
export const MALFORMED = 'malformed'

export class BadRows {
  count = 0
  /** The first few, as `file:line: field: what is wrong`. */
  readonly examples: string[] = []
  readonly #policy: BadRowPolicy

  constructor(policy: BadRowPolicy) {
    this.#policy = policy
  }

  get skips(): boolean {
    return this.#policy === 'skip'
  }

  /**
   * Counts a row that is left out.
   *
   * @throws TunesmithError `ERR_BAD_ROW` under the policy 'error'; `more` is said in its message.
   */
  add(source: Source, problem: RowProblem, more = ''): void {
    const text = describeProblem(source, problem)
    if (!this.skips) {
      throw new TunesmithError('ERR_BAD_ROW', `${text}${more}. To leave bad rows out, set data.onBadRow to "skip"`, {
        cause: problem,
      })
    }
    this.count++
    if (this.examples.length < EXAMPLES) this.examples.push(text)
  }
}

export function describeProblem(source: Source, { field, message }: RowProblem): string {
  return field === '' ? `${place(source)}: ${message}` : `${place(source)}: ${field}: ${message}`
}
