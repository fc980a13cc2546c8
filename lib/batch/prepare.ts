/**
 * From files to examples: the whole way of the data before training starts. One complete pass, because the checks, the
 * schedule and the memory plan need it. Rows stream; native threads tokenise one batch while the next is rendered.
 */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { checkSupervisedShare } from '../chat/checks.ts'
import { ControlTokens } from '../chat/control-tokens.ts'
import type { HistoryRewrite } from '../chat/spans.ts'
import { type ChatTemplate, chooseTemplate } from '../chat/template.ts'
import type { Tokenizer } from '../chat/tokenizer.ts'
import { type TrainOn, type WeightedText, weighTokens, weightedConversation, weightedText } from '../chat/weights.ts'
import { type BadRowPolicy, BadRows, EXAMPLES } from '../data/bad-rows.ts'
import type { Example, Source } from '../data/conversation.ts'
import { type DataEntry, resolveFiles } from '../data/paths.ts'
import { isConversation, type ReadReport, type Row, readRows } from '../data/read.ts'
import { RowProblem } from '../data/rows.ts'
import { splitForEvaluation, splitKey } from '../data/split.ts'
import { TunesmithError, type Warning } from '../errors.ts'
import { countSupervised, ExamplePool, type ExampleSet, exampleSet, place } from './example-set.ts'

/** The options of a run that concern its data; ResolvedOptions with a `maxLength` is one. */
export interface PrepareOptions {
  data: {
    train: readonly DataEntry[]
    eval: readonly DataEntry[]
    evalFraction: number
    onBadRow: BadRowPolicy
  }
  chatTemplate: string
  historyRewrite: HistoryRewrite
  controlTokensInText: 'error' | 'keep'
  trainOn: TrainOn
  promptLossWeight: number
  /** Tokens per conversation. */
  maxLength: number
  onTooLong: 'drop' | 'error'
  seed: number
}

export interface PrepareHooks {
  /** Told after each batch of rows. */
  onProgress?: (progress: PrepareProgress) => void
  /** Ends the pass with the signal's reason. */
  signal?: AbortSignal
}

export interface PrepareProgress {
  side: 'train' | 'eval'
  /** Rows read so far on this side. */
  rows: number
  tokens: number
}

export interface Prepared {
  train: ExampleSet
  eval?: ExampleSet
  /** Undefined where all rows are plain text. */
  template?: ChatTemplate
  counts: PrepareCounts
  /** For `warning` events. */
  warnings: Warning[]
}

/** `rows = used + evaluated + Σ dropped[].count`, over both sides. */
export interface PrepareCounts {
  rows: number
  /** Conversations that train. */
  used: number
  evaluated: number
  dropped: { reason: string; count: number; examples: string[] }[]
  /** Tokens lost with conversations over maxLength, and those of them that carry loss. */
  droppedTokens: number
  droppedSupervisedTokens: number
  /** Conversations that became several examples because the template rewrites history. */
  split: number
  /** Trained turns that share a token with the text around them. */
  straddling: number
}

/** Share of rows that may be too long before that is an error rather than a loss. */
const TOLERATED_TOO_LONG = 0.05

/**
 * Reads, validates, renders, tokenises and weighs everything.
 *
 * @throws TunesmithError as the parts of lib/data and lib/chat, `ERR_TOO_LONG` where more than 5 % of rows (or one,
 * under onTooLong 'error') exceed maxLength, `ERR_TRAIN_ON` for text rows without trainOn 'all'.
 */
export async function prepare(
  options: PrepareOptions,
  tokenizer: Tokenizer,
  hooks: PrepareHooks = {},
): Promise<Prepared> {
  const preparation = new Preparation(options, tokenizer, hooks)
  const { data } = options
  const train = await preparation.read('train', data.train)
  const evaluation = data.eval.length > 0 ? await preparation.read('eval', data.eval) : undefined
  return preparation.finish(train, evaluation)
}

interface Conversations {
  /** Examples of each conversation. */
  pieces: Example[][]
  /** One per conversation where evalFraction asks for them. */
  keys: string[]
}

/** A row on its way: its texts, waiting for their ids. */
interface Rendered {
  row: Row
  texts: WeightedText[]
}

/** Rows per native batch: enough to occupy every core, few enough for steady progress. */
const BATCH_ROWS = 256
/** Rendering gives way to the event loop after so many milliseconds. */
const TURN_MS = 8

class Preparation {
  readonly #options: PrepareOptions
  readonly #tokenizer: Tokenizer
  readonly #hooks: PrepareHooks
  readonly #pool = new ExamplePool()
  readonly #controlTokens: ControlTokens | undefined
  readonly #report: ReadReport
  readonly #tooLong = new Dropped()
  readonly #unsupervised = new Dropped()
  readonly #warnings: Warning[] = []
  #template: ChatTemplate | undefined
  #droppedTokens = 0
  #droppedSupervisedTokens = 0
  #split = 0
  #straddling = 0
  #tokens = 0

  constructor(options: PrepareOptions, tokenizer: Tokenizer, hooks: PrepareHooks) {
    this.#options = options
    this.#tokenizer = tokenizer
    this.#hooks = hooks
    this.#controlTokens = options.controlTokensInText === 'error' ? new ControlTokens(tokenizer) : undefined
    this.#report = { rows: 0, bad: new BadRows(options.data.onBadRow), warnings: this.#warnings }
  }

  async read(side: 'train' | 'eval', entries: readonly DataEntry[]): Promise<Conversations> {
    const files = await resolveFiles(entries)
    const done: Conversations = { pieces: [], keys: [] }
    const rowsBefore = this.#report.rows
    const badBefore = this.#report.bad.count
    const longBefore = this.#tooLong.count
    this.#tokens = 0
    let pending: Promise<void> = Promise.resolve()
    for await (const rows of readRows(files, this.#report)) {
      for (let start = 0; start < rows.length; start += BATCH_ROWS) {
        const rendered = await this.#render(rows.slice(start, start + BATCH_ROWS))
        await pending
        pending = this.#tokenise(rendered, done)
        // Awaited above or below; until then, and where reading fails meanwhile, its failure must not go unhandled.
        pending.catch(() => {})
        this.#hooks.onProgress?.({ side, rows: this.#report.rows - rowsBefore, tokens: this.#tokens })
      }
    }
    await pending
    this.#hooks.onProgress?.({ side, rows: this.#report.rows - rowsBefore, tokens: this.#tokens })
    const valid = this.#report.rows - rowsBefore - (this.#report.bad.count - badBefore)
    this.#checkLengths(this.#tooLong.count - longBefore, valid, done.pieces.length)
    if (done.pieces.length === 0 && side === 'eval') {
      throw new TunesmithError('ERR_NOTHING_SUPERVISED', 'No token of the evaluation data carries loss')
    }
    return done
  }

  finish({ pieces, keys }: Conversations, evaluation: Conversations | undefined): Prepared {
    const { data, seed, trainOn, promptLossWeight } = this.#options
    let train = exampleSet(pieces)
    let held = evaluation && exampleSet(evaluation.pieces)
    if (data.evalFraction > 0 && pieces.length > 0) {
      const forEvaluation = splitForEvaluation(keys, data.evalFraction, seed)
      train = exampleSet(pieces.filter((_, index) => !forEvaluation[index]))
      held = exampleSet(pieces.filter((_, index) => forEvaluation[index]))
    }
    checkSupervisedShare(train, { trainOn, promptLossWeight })
    return {
      train,
      ...(held && { eval: held }),
      ...(this.#template && { template: this.#template }),
      counts: this.#counts(train, held),
      warnings: this.#warnings,
    }
  }

  /** Validates against template and tokenizer and renders; the slow part on the JavaScript thread. */
  async #render(rows: readonly Row[]): Promise<Rendered[]> {
    const rendered: Rendered[] = []
    let started = performance.now()
    for (const row of rows) {
      if (performance.now() - started > TURN_MS) {
        await nextTurn()
        this.#hooks.signal?.throwIfAborted()
        started = performance.now()
      }
      await this.#orBad(row.source, async () => {
        rendered.push({ row, texts: isConversation(row) ? await this.#conversation(row) : this.#text(row) })
      })
    }
    this.#hooks.signal?.throwIfAborted()
    return rendered
  }

  async #conversation(row: Extract<Row, { messages: unknown }>): Promise<WeightedText[]> {
    this.#controlTokens?.checkConversation(row.messages, row.tools)
    this.#template ??= await this.#choose()
    return weightedConversation(this.#template, row, this.#options)
  }

  /** The template is chosen at the first conversation: plain text rows need none, nor a model that has one. */
  async #choose(): Promise<ChatTemplate> {
    const { template, fallback } = await chooseTemplate(this.#options.chatTemplate, this.#tokenizer)
    if (fallback !== undefined) this.#warnings.push({ code: 'WARN_TEMPLATE_FALLBACK', message: fallback })
    return template
  }

  #text(row: Extract<Row, { text: string }>): WeightedText[] {
    if (this.#options.trainOn !== 'all') {
      throw new TunesmithError(
        'ERR_TRAIN_ON',
        `${place(row.source)} is a plain text row, of which every token would carry loss; set trainOn to "all" if that ` +
          'is meant, or give conversations as "messages"',
      )
    }
    this.#controlTokens?.check(row.text, 'text')
    return [weightedText(row, this.#tokenizer)]
  }

  async #tokenise(rendered: readonly Rendered[], done: Conversations): Promise<void> {
    const encodings = await this.#tokenizer.encodeBatch(rendered.flatMap(({ texts }) => texts.map(({ text }) => text)))
    let next = 0
    for (const { row, texts } of rendered) {
      const first = next
      next += texts.length
      await this.#orBad(row.source, async () => {
        const weighed = texts.map((text, i) => weighTokens(text, encodings[first + i]!, this.#tokenizer))
        if (this.#isTooLong(weighed, row.source)) return
        const trained = weighed.filter(({ weights }) => countSupervised(weights) > 0)
        if (trained.length === 0) {
          this.#unsupervised.add(row.source)
          return
        }
        if (texts.length > 1) this.#split++
        for (const { straddling } of trained) this.#straddling += straddling
        const pieces = trained.map(({ ids, weights }) => this.#pool.add(ids, weights, row.source))
        for (const { ids } of pieces) this.#tokens += ids.length
        done.pieces.push(pieces)
        if (this.#options.data.evalFraction > 0) done.keys.push(splitKey(row))
      })
    }
  }

  #isTooLong(weighed: readonly { ids: Int32Array; weights: Float32Array }[], source: Source): boolean {
    const { maxLength, onTooLong } = this.#options
    const longest = Math.max(0, ...weighed.map(({ ids }) => ids.length))
    if (longest <= maxLength) return false
    if (onTooLong === 'error') {
      throw new TunesmithError(
        'ERR_TOO_LONG',
        `${place(source)} has ${longest} tokens, maxLength is ${maxLength}. Shorten or remove it, raise maxLength up to ` +
          'the context of the model, or set onTooLong to "drop"',
      )
    }
    this.#tooLong.add(source)
    for (const { ids, weights } of weighed) {
      this.#droppedTokens += ids.length
      this.#droppedSupervisedTokens += countSupervised(weights)
    }
    return true
  }

  #checkLengths(tooLong: number, rows: number, kept: number): void {
    if (tooLong === 0 || (kept > 0 && tooLong <= TOLERATED_TOO_LONG * rows)) return
    const share = ((100 * tooLong) / rows).toFixed(1)
    throw new TunesmithError(
      'ERR_TOO_LONG',
      `${tooLong} of ${rows} rows (${share} %) are longer than maxLength (${this.#options.maxLength} tokens), among them ` +
        `${this.#tooLong.examples.join(', ')}. Up to 5 % would be dropped. Shorten them, or raise maxLength up to the ` +
        'context of the model',
    )
  }

  /** Runs `work`; a problem of the row is counted or thrown as data.onBadRow says. */
  async #orBad(source: Source, work: () => Promise<void>): Promise<void> {
    try {
      await work()
    } catch (error) {
      if (!(error instanceof RowProblem)) throw error
      this.#report.bad.add(source, error)
    }
  }

  #counts(train: ExampleSet, held: ExampleSet | undefined): PrepareCounts {
    const { bad, rows } = this.#report
    const dropped = [
      { reason: 'malformed', count: bad.count, examples: bad.examples },
      { reason: `longer than maxLength (${this.#options.maxLength} tokens)`, ...this.#tooLong.entry },
      { reason: 'without a token that carries loss', ...this.#unsupervised.entry },
    ].filter(({ count }) => count > 0)
    for (const { reason, count, examples } of dropped) {
      const shown = `${examples.join(', ')}${count > examples.length ? ', ...' : ''}`
      this.#warnings.push({
        code: 'WARN_ROWS_DROPPED',
        message: `${count} of ${rows} rows dropped, ${reason}: ${shown}`,
      })
    }
    if (this.#straddling > 0) {
      this.#warnings.push({
        code: 'WARN_STRADDLING_TOKENS',
        message: `${this.#straddling} trained turns share a token with the template text around them; those tokens carry loss`,
      })
    }
    return {
      rows,
      used: train.starts.length - 1,
      evaluated: held ? held.starts.length - 1 : 0,
      dropped,
      droppedTokens: this.#droppedTokens,
      droppedSupervisedTokens: this.#droppedSupervisedTokens,
      split: this.#split,
      straddling: this.#straddling,
    }
  }
}

/** Rows left out for one reason: how many, and the first few by name. */
class Dropped {
  count = 0
  readonly examples: string[] = []

  add(source: Source): void {
    this.count++
    if (this.examples.length < EXAMPLES) this.examples.push(place(source))
  }

  get entry(): { count: number; examples: string[] } {
    return { count: this.count, examples: this.examples }
  }
}
