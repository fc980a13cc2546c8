/** From a row to the texts that are tokenised, with the loss weights of their characters. */
import { ControlTokens } from '../chat/control-tokens.ts'
import { Escaper } from '../chat/escape.ts'
import { leftOut } from '../chat/left-out.ts'
import { type ChatTemplate, chooseTemplate } from '../chat/template.ts'
import type { Tokenizer } from '../chat/tokenizer.ts'
import { checkCallsRendered, REFUSED, substitutes } from '../chat/tool-calls.ts'
import { type WeightedText, type WeightOptions, weightedConversation, weightedText } from '../chat/weights.ts'
import { type Conversation, isConversation, type TextRow } from '../data/conversation.ts'
import { RowProblem } from '../data/rows.ts'
import { place } from '../data/source.ts'
import { TunesmithError } from '../errors.ts'
import type { PrepareOptions } from './prepared.ts'
import type { Tally } from './tally.ts'

export class RowTexts {
  readonly #options: PrepareOptions
  readonly #weightOptions: WeightOptions
  readonly #tokenizer: Tokenizer
  readonly #tally: Tally
  /** Refuses look-alikes of control tokens, or makes them text. */
  readonly #controlTokens: ControlTokens | undefined
  readonly #escaper: Escaper | undefined
  #template: ChatTemplate | undefined

  /** A template that stands in for a missing one, and turns that needed content, are told to `tally`. */
  constructor(options: PrepareOptions, tokenizer: Tokenizer, tally: Tally) {
    this.#options = options
    this.#tokenizer = tokenizer
    this.#tally = tally
    // Rows are cut at the ends of turns, so these must be known.
    this.#weightOptions = { ...options, everyTurn: options.onTooLong === 'truncate-turns' }
    this.#controlTokens = options.controlTokensInText === 'error' ? new ControlTokens(tokenizer) : undefined
    this.#escaper = options.controlTokensInText === 'escape' ? new Escaper(tokenizer) : undefined
  }

  /** Undefined until chooseTemplate(). */
  get template(): ChatTemplate | undefined {
    return this.#template
  }

  /**
   * To be called before the first conversation: plain text rows need no template, nor a model that has one.
   *
   * @throws TunesmithError as chooseTemplate.
   */
  async chooseTemplate(): Promise<void> {
    const { chatTemplate, templateVariables: variables = {} } = this.#options
    const { template, fallback, unread } = await chooseTemplate(chatTemplate, this.#tokenizer, { variables })
    if (fallback !== undefined) this.#tally.warnings.push({ code: 'WARN_TEMPLATE_FALLBACK', message: fallback })
    if (unread !== undefined) this.#tally.warnings.push({ code: 'WARN_TEMPLATE_VARIABLE', message: unread })
    this.#template = template
  }

  /**
   * One text, several where the template rewrites history, none where no turn carries loss.
   *
   * @throws RowProblem where the row does not fit template or tokenizer, TunesmithError as weightedConversation,
   * `ERR_TRAIN_ON` for a text row without trainOn 'all'.
   */
  of(row: Conversation | TextRow): WeightedText[] {
    if (!isConversation(row)) return [this.#text(row)]
    this.#controlTokens?.checkConversation(row.messages, row.tools)
    try {
      return this.#conversation(row)
    } catch (error) {
      if (!(error instanceof RowProblem)) throw error
      return this.#substituted(row, error)
    }
  }

  /** The texts of the first form of the row that is no problem; where all are, `problem` is told, and how far they came. */
  #substituted(row: Conversation, problem: RowProblem): WeightedText[] {
    let other = ''
    for (const { conversation, filled, arguments: form } of substitutes(row)) {
      try {
        const texts = this.#conversation(conversation)
        if (filled) this.#tally.filled.add(row.source)
        if (form) this.#tally.converted(form).add(row.source)
        return texts
      } catch (error) {
        if (!(error instanceof RowProblem || error instanceof TunesmithError)) throw error
        if (form && !error.message.includes(REFUSED))
          other ||= `; with the arguments of its calls as ${form}: ${error.message}`
      }
    }
    throw other === '' ? problem : new RowProblem(problem.field, problem.message + other)
  }

  #conversation(row: Conversation): WeightedText[] {
    const template = this.#template!
    const escaper = this.#escaper
    const marked = escaper?.mark(row) ?? row
    const weighted = weightedConversation(template, marked, this.#weightOptions)
    const texts = escaper ? weighted.map((text) => escaper.finish(text)) : weighted
    checkCallsRendered(template, row)
    if (marked !== row) this.#tally.escaped.add(row.source)
    const lost = leftOut(row.messages, texts)
    if (lost !== undefined) this.#tally.leftOut.add(row.source, lost)
    return texts
  }

  #text(row: TextRow): WeightedText {
    const { text, promptLength } = row
    if (promptLength === undefined && this.#options.trainOn !== 'all') {
      throw new TunesmithError(
        'ERR_TRAIN_ON',
        `${place(row.source)} is a plain text row, of which every token would carry loss; set trainOn to "all" if that ` +
          'is meant, or give conversations as "messages"',
      )
    }
    if (promptLength === undefined) {
      this.#controlTokens?.check(text, 'text')
    } else {
      this.#controlTokens?.check(text.slice(0, promptLength), 'prompt')
      this.#controlTokens?.check(text.slice(promptLength), 'completion')
    }
    const weighted = weightedText(row, this.#tokenizer, this.#options)
    const escaped = this.#escaper?.text(weighted) ?? weighted
    if (escaped.escaped !== undefined) this.#tally.escaped.add(row.source)
    return escaped
  }
}
