/** From a row to the texts that are tokenised, with the loss weights of their characters. */
import { ControlTokens } from '../chat/control-tokens.ts'
import { Escaper } from '../chat/escape.ts'
import { type ChatTemplate, chooseTemplate } from '../chat/template.ts'
import type { Tokenizer } from '../chat/tokenizer.ts'
import { type WeightedText, weightedConversation, weightedText } from '../chat/weights.ts'
import { type Conversation, isConversation, type TextRow } from '../data/conversation.ts'
import { place } from '../data/source.ts'
import { TunesmithError, type Warning } from '../errors.ts'
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
    const { template, fallback } = await chooseTemplate(chatTemplate, this.#tokenizer, { variables })
    if (fallback !== undefined) this.#warnings.push({ code: 'WARN_TEMPLATE_FALLBACK', message: fallback })
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
    const template = this.#template!
    const escaper = this.#escaper
    if (!escaper) return weightedConversation(template, row, this.#options)
    return weightedConversation(template, escaper.mark(row), this.#options).map((text) => escaper.finish(text))
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
