/** Control tokens that a row spells in its own words: a user who types `<|im_end|>` would otherwise end the turn. */
import type { Message } from '../data/conversation.ts'
import { RowProblem, visitStrings } from '../data/rows.ts'
import type { Tokenizer } from './tokenizer.ts'

export class ControlTokens {
  /** The tokens, longest first: of two at one place the tokenizer takes the longer. */
  readonly texts: readonly string[]
  /** Undefined where the tokenizer has none. */
  readonly #pattern: RegExp | undefined
  readonly #every: RegExp | undefined
  readonly #index: ReadonlyMap<string, number>

  constructor({ added }: Pick<Tokenizer, 'added'>) {
    const texts = added.filter(({ special, text }) => special && text.trim() !== '').map(({ text }) => text)
    this.texts = texts.sort((a, b) => b.length - a.length)
    this.#index = new Map(texts.map((text, index) => [text, index]))
    const source = texts.map((text) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('|')
    this.#pattern = source === '' ? undefined : new RegExp(source)
    this.#every = source === '' ? undefined : new RegExp(source, 'g')
  }

  /** The first control token in `text`. */
  find(text: string): string | undefined {
    return this.#pattern?.exec(text)?.[0]
  }

  /** `text` with `change(index into texts, token)` for each control token. */
  replace(text: string, change: (index: number, token: string) => string): string {
    return this.#every ? text.replace(this.#every, (token) => change(this.#index.get(token)!, token)) : text
  }

  /** @throws RowProblem naming the field and the token. */
  check(value: unknown, field: string): void {
    visitStrings(value, field, (text, at) => {
      const token = this.find(text)
      if (token === undefined) return
      throw new RowProblem(
        at,
        `spells the control token ${token}, which the tokenizer would read as one. Remove it, or set ` +
          'controlTokensInText to "escape" to train it as ordinary text, or to "keep" if it is meant as a control token',
      )
    })
  }

  checkConversation(messages: readonly Message[], tools: readonly unknown[] | undefined): void {
    for (const [index, message] of messages.entries()) this.check(message, `messages[${index}]`)
    if (tools) this.check(tools, 'tools')
  }
}
