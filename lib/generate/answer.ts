/** One completion while it grows: its tokens, the text that is sure, and whether and why it is over. */
import type { Tokenizer } from '../chat/tokenizer.ts'
import { type SamplingOptions, sampleToken } from './sampling.ts'
import { TextStream } from './text-stream.ts'

export interface AnswerSettings extends SamplingOptions {
  maxNewTokens: number
  /** Most tokens of prompt and completion together. */
  maxContext: number
  stopTokens: ReadonlySet<number>
  stopStrings: readonly string[]
  /** Whether pieces of text are wanted as they come; without it they come as one at the end. */
  pieces: boolean
}

export class Answer {
  readonly tokens: number[] = []
  finishReason: 'stop' | 'length' | undefined
  readonly #prompt: Int32Array
  readonly #settings: AnswerSettings
  readonly #stream: TextStream
  readonly #seen: Set<number>

  constructor(prompt: Int32Array, tokenizer: Pick<Tokenizer, 'decode'>, settings: AnswerSettings) {
    this.#prompt = prompt
    this.#settings = settings
    this.#stream = new TextStream(tokenizer, settings.stopStrings)
    this.#seen = new Set((settings.repetitionPenalty ?? 1) === 1 ? [] : prompt)
  }

  /** The last token, and where it stands in the context. */
  get last(): { token: number; position: number } {
    return { token: this.tokens.at(-1)!, position: this.#prompt.length + this.tokens.length - 1 }
  }

  /** Chooses the next token from `logits` [V]. Resolves with the text that is sure now, '' for none. */
  async take(logits: Float32Array): Promise<string> {
    const { stopTokens, stopStrings, maxNewTokens, maxContext, pieces } = this.#settings
    const token = sampleToken(logits, this.#settings, this.tokens.length, this.#seen)
    this.tokens.push(token)
    if (this.#seen.size > 0) this.#seen.add(token)
    if (stopTokens.has(token)) {
      this.finishReason = 'stop'
      return ''
    }
    let piece = ''
    if (pieces || stopStrings.length > 0) piece = await this.#stream.push(token)
    else this.#stream.add(token)
    if (this.#stream.stopped) this.finishReason = 'stop'
    else if (this.tokens.length >= maxNewTokens || this.last.position >= maxContext) this.finishReason = 'length'
    return piece
  }

  /** The whole text, and what of it take() has not told. */
  end(): Promise<{ text: string; rest: string }> {
    return this.#stream.end()
  }
}
