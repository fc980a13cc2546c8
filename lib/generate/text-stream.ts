/** From token ids to text, piece by piece: a character whose bytes are spread over tokens waits until it is whole. */
import type { Tokenizer } from '../chat/tokenizer.ts'

/** What decoders write for bytes that are no character (yet). */
const replacement = '\ufffd'

export class TextStream {
  readonly #tokenizer: Pick<Tokenizer, 'decode'>
  readonly #onPiece: ((piece: string) => void) | undefined
  readonly #ids: number[] = []
  /** Text already told. */
  #told = ''

  constructor(tokenizer: Pick<Tokenizer, 'decode'>, onPiece?: (piece: string) => void) {
    this.#tokenizer = tokenizer
    this.#onPiece = onPiece
  }

  async push(id: number): Promise<void> {
    this.#ids.push(id)
    if (!this.#onPiece) return
    const text = await this.#tokenizer.decode(this.#ids)
    // Decoders join tokens with context (leading spaces, bytes), so the whole is decoded and the difference told.
    if (text.endsWith(replacement) || !text.startsWith(this.#told)) return
    this.#tell(text)
  }

  /** The whole text, after telling what was held back. */
  async end(): Promise<string> {
    const text = await this.#tokenizer.decode(this.#ids)
    if (text.startsWith(this.#told)) this.#tell(text)
    return text
  }

  #tell(text: string): void {
    if (text.length === this.#told.length) return
    this.#onPiece?.(text.slice(this.#told.length))
    this.#told = text
  }
}
