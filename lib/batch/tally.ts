/** The counts of a preparation and the warnings they give rise to: nothing is lost without being counted and named. */
import type { Truncated } from '../chat/truncate.ts'
import type { WeightedTokens } from '../chat/weights.ts'
import { BadRows, EXAMPLES, MALFORMED } from '../data/bad-rows.ts'
import type { Source } from '../data/conversation.ts'
import { placeList } from '../data/places.ts'
import type { ReadReport } from '../data/read.ts'
import { place } from '../data/source.ts'
import { TunesmithError, type Warning } from '../errors.ts'
import { countSupervised } from './example-set.ts'
import type { DataCounts, PrepareOptions } from './prepared.ts'

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
    return placeList(this.examples, this.count)
  }
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
  /** Conversations whose arguments of tool calls had to be given another form, by that form. */
  readonly #converted = new Map<string, Dropped>()
  truncatedTokens = 0
  truncatedSupervisedTokens = 0
  unstopped = 0
  /** Conversations that became several examples, and how many these are. */
  readonly split = new Dropped()
  splitExamples = 0
  /** Trained turns that share a token with the text around them, and the rows that have such. */
  straddling = 0
  readonly sharing = new Dropped()
  /** Rows whose look-alikes of control tokens became text. */
  readonly escaped = new Dropped()
  readonly #maxLength: number
  readonly #truncates: boolean

  constructor({ data, maxLength, onTooLong }: Pick<PrepareOptions, 'data' | 'maxLength' | 'onTooLong'>) {
    this.report = { rows: 0, bad: new BadRows(data.onBadRow), formats: [], warnings: this.warnings }
    this.#maxLength = maxLength
    this.#truncates = onTooLong !== 'drop' && onTooLong !== 'error'
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

  converted(form: string): Dropped {
    const known = this.#converted.get(form) ?? new Dropped()
    this.#converted.set(form, known)
    return known
  }

  /** Counts a row of whose `texts` texts `kept` are examples. */
  addKept(source: Source, texts: number, kept: readonly WeightedTokens[]): void {
    if (texts > 1) {
      this.split.add(source)
      this.splitExamples += kept.length
    }
    const shared = kept.reduce((sum, { straddling }) => sum + straddling, 0)
    if (shared > 0) this.sharing.add(source)
    this.straddling += shared
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
      split: this.split.count,
      straddling: this.straddling,
    }
  }

  /** The warnings of every stage, then those that the counts deserve. */
  allWarnings(): Warning[] {
    const dropped = this.#dropped().map(({ reason, count, examples }) => {
      const what = `${count} of ${this.report.rows} rows dropped, ${reason}`
      const lost =
        reason === this.#tooLongReason &&
        `, which lost ${this.droppedTokens} tokens, ${this.droppedSupervisedTokens} of them with loss`
      return { code: 'WARN_ROWS_DROPPED', message: `${what}${lost || ''}: ${placeList(examples, count)}` }
    })
    return [
      ...this.warnings,
      ...dropped,
      ...this.#truncation(),
      ...this.#splits(),
      ...this.#escapes(),
      ...this.#fillings(),
      ...this.#conversions(),
      ...this.#lostWords(),
      ...this.#sharedTokens(),
    ]
  }

  #truncation(): Warning[] {
    const { count, shown } = this.truncated
    if (count === 0) return []
    const lost = `${this.truncatedTokens} tokens, ${this.truncatedSupervisedTokens} of them with loss`
    const stops =
      this.unstopped > 0 ? `; ${turnsOf(this.unstopped, 'lost its stop token', 'lost their stop token')}` : ''
    const message = `${rowsOf(count)} cut to ${this.#maxLength} tokens, which lost ${lost}${stops}: ${shown}`
    return [{ code: 'WARN_ROWS_TRUNCATED', message }]
  }

  #splits(): Warning[] {
    const { count, shown } = this.split
    if (count === 0) return []
    const message =
      `${conversationsOf(count)} became ${this.splitExamples} examples, because the chat template renders earlier turns ` +
      'differently once others follow (it may leave their reasoning out): each trained turn has the context that ' +
      `inference would show it, and what comes before is read several times. historyRewrite "error" refuses such rows: ${shown}`
    return [{ code: 'WARN_HISTORY_REWRITE', message }]
  }

  #escapes(): Warning[] {
    const { count, shown } = this.escaped
    if (count === 0) return []
    const message =
      `${rowsOf(count)} ${count === 1 ? 'spells' : 'spell'} control tokens, which train as ordinary text. Such text is cut into ` +
      'tokens together with the letters beside it, so that these may become other tokens than they are elsewhere; ' +
      `inference has to encode it without control tokens too: ${shown}`
    return [{ code: 'WARN_CONTROL_TOKENS_ESCAPED', message }]
  }

  #fillings(): Warning[] {
    const { count, shown } = this.filled
    if (count === 0) return []
    const message =
      `${conversationsOf(count)} ${count === 1 ? 'has' : 'have'} turns that call tools and have no content, which the chat ` +
      `template refuses; they are rendered with empty content, and have to be at inference: ${shown}`
    return [{ code: 'WARN_EMPTY_CONTENT', message }]
  }

  #conversions(): Warning[] {
    return [...this.#converted].map(([form, { count, shown }]) => {
      const message =
        `${conversationsOf(count)} ${count === 1 ? 'has' : 'have'} arguments of tool calls in a form that the chat template ` +
        `refuses; they are rendered as ${form}, and have to be at inference: ${shown}`
      return { code: 'WARN_TOOL_ARGUMENTS', message }
    })
  }

  #lostWords(): Warning[] {
    const { count, shown } = this.leftOut
    if (count === 0) return []
    const message =
      `${conversationsOf(count)} ${count === 1 ? 'has' : 'have'} text that the chat template leaves out, so that the model will not learn it; use a ` +
      `chatTemplate that renders it, or remove it from the data: ${shown}`
    return [{ code: 'WARN_TEXT_LEFT_OUT', message }]
  }

  #sharedTokens(): Warning[] {
    if (this.straddling === 0) return []
    const message =
      `${turnsOf(this.straddling, 'shares a token', 'share a token')} with the text before or behind (of the template, or of ` +
      `the prompt); ${this.straddling === 1 ? 'it carries' : 'these tokens carry'} loss: ${this.sharing.shown}`
    return [{ code: 'WARN_STRADDLING_TOKENS', message }]
  }

  get #tooLongReason(): string {
    return this.#truncates
      ? `without a turn that trains left in maxLength (${this.#maxLength} tokens)`
      : `longer than maxLength (${this.#maxLength} tokens)`
  }

  #dropped(): DataCounts['dropped'] {
    const { bad } = this.report
    return [
      { reason: MALFORMED, count: bad.count, examples: bad.examples },
      { reason: this.#tooLongReason, ...this.tooLong.entry },
      { reason: 'without a token that carries loss', ...this.unsupervised.entry },
    ].filter(({ count }) => count > 0)
  }
}

/** The error where no row has become an example. */
export function nothingLeft({ rows, dropped }: Pick<PassCounts, 'rows' | 'dropped'>): TunesmithError {
  const malformed = dropped.some(({ reason }) => reason === MALFORMED)
  const reasons = dropped.map(({ reason, count, examples }) => `${count} ${reason} (${placeList(examples, count)})`)
  return new TunesmithError(
    malformed ? 'ERR_EMPTY_DATASET' : 'ERR_NOTHING_SUPERVISED',
    `No row is left to train on: of ${rowsOf(rows)}, ${reasons.join('; ')}`,
  )
}

function rowsOf(count: number): string {
  return `${count} ${count === 1 ? 'row' : 'rows'}`
}

function conversationsOf(count: number): string {
  return `${count} ${count === 1 ? 'conversation' : 'conversations'}`
}

function turnsOf(count: number, does: string, doAll: string): string {
  return count === 1 ? `1 trained turn ${does}` : `${count} trained turns ${doAll}`
}
