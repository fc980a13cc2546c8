/** From a row to the texts that are tokenised, with the loss weights of their characters. */
import { ControlTokens } from '../chat/control-tokens.ts'
import { Escaper } from '../chat/escape.ts'
import { type ChatTemplate, chooseTemplate } from '../chat/template.ts'
import type { Tokenizer } from '../chat/tokenizer.ts'
import { type WeightedText, weightedConversation, weightedText } from '../chat/weights.ts'
import { type Conversation, isConversation, type TextRow } from '../data/conversation.ts'
import { TunesmithError, type Warning } from '../errors.ts'
import { place } from './example-set.ts'
import type { PrepareOptions } from './prepared.ts'

export class RowTexts {
  readonly #options: PrepareOptions
  readonly #tokenizer: Tokenizer
  readonly #warnings: Warning[]
  /** Refuses look-alikes of control tokens, or makes them text. */
  readonly #controlTokens: ControlTokens | undefined
  readonly #escaper: Escaper | undefined
  #template: ChatTemplate | undefined

  /** A template that stands in for a missing one is told in `warnings`. */
  constructor(options: PrepareOptions, tokenizer: Tokenizer, warnings: Warning[]) {
    this.#options = options
    this.#tokenizer = tokenizer
    this.#warnings = warnings
    this.#controlTokens = options.controlTokensInText === 'error' ? new ControlTokens(tokenizer) : undefined
    this.#escaper = options.controlTokensInText === 'escape' ? new Escaper(tokenizer) : undefined
  }

  /** Undefined until a conversation has come. */
  get template(): ChatTemplate | undefined {
    return this.#template
  }

  /**
   * One text, several where the template rewrites history, none where no turn carries loss.
   *
   * @throws RowProblem where the row does not fit template or tokenizer, TunesmithError as weightedConversation and
   * chooseTemplate, `ERR_TRAIN_ON` for a text row without trainOn 'all'.
   */
  async of(row: Conversation | TextRow): Promise<WeightedText[]> {
    return isConversation(row) ? await this.#conversation(row) : [this.#text(row)]
  }

  async #conversation(row: Conversation): Promise<WeightedText[]> {
    this.#controlTokens?.checkConversation(row.messages, row.tools)
    this.#template ??= await this.#choose()
    if (!this.#escaper) return weightedConversation(this.#template, row, this.#options)
    const escaper = this.#escaper
    return weightedConversation(this.#template, escaper.mark(row), this.#options).map((text) => escaper.finish(text))
  }

  /** The template is chosen at the first conversation: plain text rows need none, nor a model that has one. */
  async #choose(): Promise<ChatTemplate> {
    const { chatTemplate, templateVariables: variables = {} } = this.#options
    const { template, fallback } = await chooseTemplate(chatTemplate, this.#tokenizer, { variables })
    if (fallback !== undefined) this.#warnings.push({ code: 'WARN_TEMPLATE_FALLBACK', message: fallback })
    return template
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
    return this.#escaper ? this.#escaper.text(weighted) : weighted
  }
}
