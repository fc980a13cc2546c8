/** Control tokens that a row spells in its own words: a user who types `<|im_end|>` would otherwise end the turn. */
import type { Message } from '../data/conversation.ts'
import { RowProblem, visitStrings } from '../data/rows.ts'
import type { Tokenizer } from './tokenizer.ts'

export class ControlTokens {
  /** Undefined where the tokenizer has none. */
  readonly #pattern: RegExp | undefined

  constructor({ added }: Tokenizer) {
    const texts = added.filter(({ special, text }) => special && text.trim() !== '').map(({ text }) => text)
    // Longest first: of two tokens at one place the tokenizer takes the longer.
    texts.sort((a, b) => b.length - a.length)
    const escaped = texts.map((text) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'))
    this.#pattern = escaped.length > 0 ? new RegExp(escaped.join('|')) : undefined
  }

  /** The first control token in `text`. */
  find(text: string): string | undefined {
    return this.#pattern?.exec(text)?.[0]
  }

  /** @throws RowProblem naming the field and the token. */
  check(value: unknown, field: string): void {
    visitStrings(value, field, (text, at) => {
      const token = this.find(text)
      if (token === undefined) return
      throw new RowProblem(
        at,
        `spells the control token ${token}, which the tokenizer would read as one. Remove it, or set ` +
          'controlTokensInText to "keep" if it is meant as one',
      )
    })
  }

  checkConversation(messages: readonly Message[], tools: readonly unknown[] | undefined): void {
    for (const [index, message] of messages.entries()) this.check(message, `messages[${index}]`)
    if (tools) this.check(tools, 'tools')
  }
}
