/**
 * One complete pass over the data: rows stream from the files, are rendered, tokenised and weighed, and end as examples.
 * Native threads tokenise one batch while the next is rendered.
 */
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Encoding } from '../chat/encoding.ts'
import { type KeptText, type SeenRow, seenPieces } from '../chat/seen.ts'
import type { ChatTemplate } from '../chat/template.ts'
import type { Tokenizer } from '../chat/tokenizer.ts'
import { type WeightedText, type WeightedTokens, weighTokens } from '../chat/weights.ts'
import { type Example, isConversation, isTokenRow, type Row, type Source } from '../data/conversation.ts'
import { type DataEntry, resolveFiles } from '../data/paths.ts'
import { type FileFormat, readRows } from '../data/read.ts'
import { RowProblem } from '../data/rows.ts'
import { firstRows } from '../data/sample.ts'
import { splitKey } from '../data/split.ts'
import { TunesmithError, type Warning } from '../errors.ts'
import { countSupervised, ExamplePool } from './example-set.ts'
import { checkTooLong, fitLength } from './length.ts'
import type { PrepareHooks, PrepareOptions, Side } from './prepared.ts'
import { RowTexts } from './row-texts.ts'
import { type PassCounts, Tally } from './tally.ts'
import { weightedTokenRow } from './token-row.ts'

/** Everything a pass finds: JSON but for the conversations, so that the cache can keep it. */
export interface PassResult {
  train: Conversations
  /** Undefined without evaluation files. */
  eval?: Conversations
  counts: PassCounts
  formats: FileFormat[]
  warnings: Warning[]
  /** Whether a conversation came, so that a template was chosen. */
  usesTemplate: boolean
}

/** The conversations of one side. */
export interface Conversations {
  /** Examples of each conversation. */
  pieces: Example[][]
  /** One per conversation where evalFraction asks for them. */
  keys: string[]
}

/** A row on its way: its texts, waiting for their ids, or the ids that it came with. */
interface Rendered {
  row: Row
  texts: WeightedText[]
  tokens?: WeightedTokens
}

/** A batch of rows whose texts native threads are at. */
interface Encoded {
  rendered: readonly Rendered[]
  encodings: Promise<Encoding[]>
}

/** For a look at single rows on their way. */
export interface Watch {
  /** Rows per side that are led through. */
  rows: number
  /** Told of each row that became examples. */
  onRow: (seen: SeenRow) => void
}

/** Rows per native batch: enough to occupy every core, few enough for steady progress. */
const BATCH_ROWS = 256
/** Rendering and weighing give way to the event loop after so many milliseconds. */
const TURN_MS = 8

export class Pass {
  readonly #tally: Tally
  readonly #options: PrepareOptions
  readonly #tokenizer: Tokenizer
  readonly #hooks: PrepareHooks
  readonly #watch: Watch | undefined
  readonly #pool = new ExamplePool()
  readonly #texts: RowTexts
  /** Of the side that is being read. */
  #tokens = 0

  constructor(options: PrepareOptions, tokenizer: Tokenizer, hooks: PrepareHooks, watch?: Watch) {
    this.#options = options
    this.#tokenizer = tokenizer
    this.#hooks = hooks
    this.#watch = watch
    this.#tally = new Tally(options)
    this.#texts = new RowTexts(options, tokenizer, this.#tally)
  }

  /** The template of the conversations; undefined where none has come. */
  get template(): ChatTemplate | undefined {
    return this.#texts.template
  }

  /**
   * Reads everything.
   *
   * @throws TunesmithError as prepare().
   */
  async run(): Promise<PassResult> {
    const { data } = this.#options
    const train = await this.#read('train', data.train)
    const evaluation = data.eval.length > 0 ? await this.#read('eval', data.eval) : undefined
    return {
      train,
      ...(evaluation && { eval: evaluation }),
      counts: this.#tally.counts(),
      formats: this.#tally.report.formats,
      warnings: this.#tally.allWarnings(),
      usesTemplate: this.template !== undefined,
    }
  }

  async #read(side: Side, entries: readonly DataEntry[]): Promise<Conversations> {
    const done: Conversations = { pieces: [], keys: [] }
    const { report, tooLong } = this.#tally
    const before = { rows: report.rows, valid: this.#tally.validRows, tooLong: tooLong.count }
    const tellProgress = () => this.#hooks.onProgress?.({ side, rows: report.rows - before.rows, tokens: this.#tokens })
    this.#tokens = 0
    let pending: Encoded | undefined
    for await (const rows of this.#watch ? this.#first(entries, this.#watch.rows) : this.#batches(entries)) {
      const rendered = await this.#render(rows)
      // Native threads get the next batch before this one's weights are made: they never wait for this thread.
      const encoded = { rendered, encodings: this.#encode(rendered) }
      if (pending) await this.#weigh(pending, done)
      pending = encoded
      tellProgress()
    }
    if (pending) await this.#weigh(pending, done)
    tellProgress()
    // A few rows say nothing about the share of all.
    if (this.#watch) return done
    checkTooLong(
      {
        tooLong: tooLong.count - before.tooLong,
        rows: this.#tally.validRows - before.valid,
        kept: done.pieces.length,
        examples: tooLong.examples,
      },
      this.#options,
    )
    if (done.pieces.length === 0 && side === 'eval') {
      throw new TunesmithError('ERR_NOTHING_SUPERVISED', 'No token of the evaluation data carries loss')
    }
    return done
  }

  async *#batches(entries: readonly DataEntry[]): AsyncGenerator<Row[]> {
    for await (const rows of readRows(await resolveFiles(entries), this.#tally.report))
      for (let start = 0; start < rows.length; start += BATCH_ROWS) yield rows.slice(start, start + BATCH_ROWS)
  }

  /** As many rows as are watched; those that were read beyond do not count. */
  async *#first(entries: readonly DataEntry[], rows: number): AsyncGenerator<Row[]> {
    const { report } = this.#tally
    const files = await Promise.all(entries.map((entry) => resolveFiles([entry])))
    const sample = await firstRows(files, rows, report)
    for (let start = 0; start < sample.length; start += BATCH_ROWS) yield sample.slice(start, start + BATCH_ROWS)
  }

  /** Validates against template and tokenizer and renders; the slow part on the JavaScript thread. */
  async #render(rows: readonly Row[]): Promise<Rendered[]> {
    const rendered: Rendered[] = []
    const turn = this.#turns()
    for (const row of rows) {
      if (turn.over()) await turn.give()
      if (!this.template && isConversation(row)) await this.#texts.chooseTemplate()
      this.#orBad(row.source, () => {
        if (isTokenRow(row)) {
          rendered.push({ row, texts: [], tokens: weightedTokenRow(row, this.#tokenizer, this.#options) })
        } else {
          rendered.push({ row, texts: this.#texts.of(row) })
        }
      })
    }
    this.#hooks.signal?.throwIfAborted()
    return rendered
  }

  /** Gives way to the event loop now and then, and ends the pass there when it is told to. */
  #turns() {
    let started = performance.now()
    return {
      over: () => performance.now() - started > TURN_MS,
      give: async () => {
        await nextTurn()
        this.#hooks.signal?.throwIfAborted()
        started = performance.now()
      },
    }
  }

  /** One encoding per text of all rows, in order. */
  #encode(rendered: readonly Rendered[]): Promise<Encoding[]> {
    const encodings = this.#tokenizer.encodeTexts(rendered.flatMap(({ texts }) => texts))
    // Awaited later; until then, and where another batch fails meanwhile, its failure must not go unhandled.
    encodings.catch(() => {})
    return encodings
  }

  async #weigh({ rendered, encodings: pending }: Encoded, done: Conversations): Promise<void> {
    const encodings = await pending
    const turn = this.#turns()
    let next = 0
    for (const { row, texts, tokens } of rendered) {
      if (turn.over()) await turn.give()
      const own = encodings.slice(next, next + texts.length)
      next += texts.length
      this.#orBad(row.source, () => {
        const weighed = tokens ? [tokens] : texts.map((text, i) => weighTokens(text, own[i]!, this.#tokenizer))
        const kept = this.#add(row, weighed, done)
        if (kept && this.#watch) this.#watch.onRow({ row, pieces: seenPieces(kept, weighed, texts, own) })
      })
    }
  }

  /** The last stage: what of a row becomes examples. */
  #add(row: Row, weighed: readonly WeightedTokens[], done: Conversations): KeptText[] | undefined {
    const fitting = fitLength(weighed, row.source, this.#options, this.#tally, this.#tokenizer.bos?.id)
    if (fitting === undefined) return undefined
    const trained = fitting.flatMap((tokens, index) =>
      tokens && countSupervised(tokens.weights) > 0 ? [{ tokens, index }] : [],
    )
    if (trained.length === 0) {
      this.#tally.unsupervised.add(row.source)
      return undefined
    }
    this.#tally.addKept(
      row.source,
      weighed.length,
      trained.map(({ tokens }) => tokens),
    )
    const kept = trained.map(({ tokens, index }) => {
      return { tokens, index, example: this.#pool.add(tokens.ids, tokens.weights, row.source) }
    })
    for (const { tokens } of kept) this.#tokens += tokens.ids.length
    done.pieces.push(kept.map(({ example }) => example))
    if (this.#options.data.evalFraction > 0) done.keys.push(splitKey(row))
    return kept
  }

  /** Runs `work`; a problem of the row is counted or thrown as data.onBadRow says. */
  #orBad(source: Source, work: () => void): void {
    try {
      work()
    } catch (error) {
      if (!(error instanceof RowProblem)) throw error
      this.#tally.report.bad.add(source, error)
    }
  }
}
