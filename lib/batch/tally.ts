/** The counts of a preparation and the warnings they give rise to: nothing is lost without being counted and named. */
import type { Truncated } from '../chat/truncate.ts'
import type { WeightedTokens } from '../chat/weights.ts'
import { BadRows, EXAMPLES, MALFORMED } from '../data/bad-rows.ts'
import type { Source } from '../data/conversation.ts'
import type { ReadReport } from '../data/read.ts'
import { place } from '../data/source.ts'
import { TunesmithError, type Warning } from '../errors.ts'
import { countSupervised } from './example-set.ts'
import type { DataCounts, DroppedRows, PrepareOptions } from './prepared.ts'

/** What a pass has counted, before it is known which conversations train. */
export type PassCounts = Omit<DataCounts, 'used' | 'evaluated'>

/** Rows left out for one reason: how many, and the first few by name. */
export class Dropped {
  count = 0
  readonly examples: string[] = []

  /** @param field of the row, where it tells more */
  add(source: Source, field?: string): void {
    this.count++
    if (this.examples.length < EXAMPLES)
      this.examples.push(field === undefined ? place(source) : `${place(source)} ${field}`)
  }

  get entry(): { count: number; examples: string[] } {
    return { count: this.count, examples: this.examples }
  }

  /** The examples, and whether they are all. */
  get shown(): string {
    return shownExamples(this)
  }
}

function shownExamples({ count, examples }: Pick<DroppedRows, 'count' | 'examples'>): string {
  return `${examples.join(', ')}${count > examples.length ? ', ...' : ''}`
}

/** Filled by every stage of the preparation, over both sides. */
export class Tally {
  readonly warnings: Warning[] = []
  /** What reading finds; its warnings are these. */
  readonly report: ReadReport
  readonly tooLong = new Dropped()
  readonly unsupervised = new Dropped()
  /** Tokens lost with rows over maxLength, and those of them that carry loss. */
  droppedTokens = 0
  droppedSupervisedTokens = 0
  readonly truncated = new Dropped()
  /** Conversations whose turns without content had to be given an empty one. */
  readonly filled = new Dropped()
  /** Conversations of which the chat template leaves words out. */
  readonly leftOut = new Dropped()
  truncatedTokens = 0
  truncatedSupervisedTokens = 0
  unstopped = 0
  split = 0
  straddling = 0
  readonly #maxLength: number

  constructor({ data, maxLength }: Pick<PrepareOptions, 'data' | 'maxLength'>) {
    this.report = { rows: 0, bad: new BadRows(data.onBadRow), formats: [], warnings: this.warnings }
    this.#maxLength = maxLength
  }

  /** Rows that were neither blank nor malformed. */
  get validRows(): number {
    return this.report.rows - this.report.bad.count
  }

  /** Counts a row that was cut from `before` to `after`. */
  addTruncated(
    after: readonly (Truncated | undefined)[],
    source: Source,
    before: readonly WeightedTokens[],
  ): readonly (Truncated | undefined)[] {
    const kept = after.filter((piece) => piece !== undefined)
    const sum = (pieces: readonly WeightedTokens[], of: (piece: WeightedTokens) => number) =>
      pieces.reduce((total, piece) => total + of(piece), 0)
    const tokens = ({ ids }: WeightedTokens) => ids.length
    const supervised = ({ weights }: WeightedTokens) => countSupervised(weights)
    this.truncated.add(source)
    this.truncatedTokens += sum(before, tokens) - sum(kept, tokens)
    this.truncatedSupervisedTokens += sum(before, supervised) - sum(kept, supervised)
    for (const { unstopped } of kept) this.unstopped += unstopped
    return after
  }

  counts(): PassCounts {
    return {
      rows: this.report.rows,
      dropped: this.#dropped(),
      droppedTokens: this.droppedTokens,
      droppedSupervisedTokens: this.droppedSupervisedTokens,
      truncated: this.truncated.count,
      truncatedTokens: this.truncatedTokens,
      truncatedSupervisedTokens: this.truncatedSupervisedTokens,
      unstopped: this.unstopped,
      split: this.split,
      straddling: this.straddling,
    }
  }

  /** The warnings of every stage, then those that the counts deserve. */
  allWarnings(): Warning[] {
    const dropped = this.#dropped().map(({ reason, count, examples }) => {
      const message = `${count} of ${this.report.rows} rows dropped, ${reason}: ${shownExamples({ count, examples })}`
      return { code: 'WARN_ROWS_DROPPED', message }
    })
    return [
      ...this.warnings,
      ...dropped,
      ...this.#truncation(),
      ...this.#fillings(),
      ...this.#lostWords(),
      ...this.#sharedTokens(),
    ]
  }

  #truncation(): Warning[] {
    const { count, shown } = this.truncated
    if (count === 0) return []
    const lost = `${this.truncatedTokens} tokens, ${this.truncatedSupervisedTokens} of them with loss`
    const stops = this.unstopped > 0 ? `; ${this.unstopped} trained turns lost their stop token` : ''
    const message = `${count} rows cut to ${this.#maxLength} tokens, which lost ${lost}${stops}: ${shown}`
    return [{ code: 'WARN_ROWS_TRUNCATED', message }]
  }

  #fillings(): Warning[] {
    const { count, shown } = this.filled
    if (count === 0) return []
    const message =
      `${count} conversations have turns that call tools and have no content, which the chat template refuses; they are ` +
      `rendered with empty content, and have to be at inference: ${shown}`
    return [{ code: 'WARN_EMPTY_CONTENT', message }]
  }

  #lostWords(): Warning[] {
    const { count, shown } = this.leftOut
    if (count === 0) return []
    const message =
      `${count} conversations have text that the chat template leaves out, so that the model will not learn it; use a ` +
      `chatTemplate that renders it, or remove it from the data: ${shown}`
    return [{ code: 'WARN_TEXT_LEFT_OUT', message }]
  }

  #sharedTokens(): Warning[] {
    if (this.straddling === 0) return []
    const message = `${this.straddling} trained turns share a token with the template text around them; those tokens carry loss`
    return [{ code: 'WARN_STRADDLING_TOKENS', message }]
  }

  #dropped(): DataCounts['dropped'] {
    const { bad } = this.report
    return [
      { reason: MALFORMED, count: bad.count, examples: bad.examples },
      { reason: `longer than maxLength (${this.#maxLength} tokens)`, ...this.tooLong.entry },
      { reason: 'without a token that carries loss', ...this.unsupervised.entry },
    ].filter(({ count }) => count > 0)
  }
}

/** The error where no row has become an example. */
export function nothingLeft({ rows, dropped }: Pick<PassCounts, 'rows' | 'dropped'>): TunesmithError {
  const malformed = dropped.some(({ reason }) => reason === MALFORMED)
  const reasons = dropped.map(({ reason, count, examples }) => `${count} ${reason}, the first ${examples[0]}`)
  return new TunesmithError(
    malformed ? 'ERR_EMPTY_DATASET' : 'ERR_NOTHING_SUPERVISED',
    `No row is left to train on: of ${rows} ${rows === 1 ? 'row' : 'rows'}, ${reasons.join('; ')}`,
  )
}
