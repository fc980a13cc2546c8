/**
 * From token ids to text, piece by piece: a character whose bytes are spread over tokens waits until it is whole, and
 * what may be the beginning of a stop string waits until it is known not to be.
 */
import type { Tokenizer } from '../chat/tokenizer.ts'

/** What decoders write for bytes that are no character (yet). */
const replacement = '\ufffd'

export class TextStream {
  readonly #tokenizer: Pick<Tokenizer, 'decode'>
  readonly #stops: readonly string[]
  readonly #ids: number[] = []
  /** Text already told. */
  #told = ''
  /** The whole text, once a stop string has come. */
  #stopped: string | undefined

  /** @param stops not empty each; the text ends before the first that comes */
  constructor(tokenizer: Pick<Tokenizer, 'decode'>, stops: readonly string[] = []) {
    this.#tokenizer = tokenizer
    this.#stops = stops
  }

  /** Whether a stop string has come. */
  get stopped(): boolean {
    return this.#stopped !== undefined
  }

  /** Adds a token without asking for text: for where nobody listens and there are no stop strings. */
  add(id: number): void {
    this.#ids.push(id)
  }

  /** The text that is now sure, '' for none. */
  async push(id: number): Promise<string> {
    this.#ids.push(id)
    // Decoders join tokens with context (leading spaces, bytes), so the whole is decoded and the difference told.
    const text = await this.#tokenizer.decode(this.#ids)
    const known = text.startsWith(this.#told)
    const stop = firstStop(text, this.#stops, known ? this.#told.length : 0)
    if (stop !== undefined) {
      this.#stopped = text.slice(0, stop)
      return this.#tell(this.#stopped)
    }
    if (!known || text.endsWith(replacement)) return ''
    return this.#tell(text.slice(0, text.length - heldBack(text, this.#stops)))
  }

  /** The whole text, and what of it was held back until now. */
  async end(): Promise<{ text: string; rest: string }> {
    const text = this.#stopped ?? (await this.#tokenizer.decode(this.#ids))
    return { text, rest: this.#tell(text) }
  }

  #tell(text: string): string {
    if (!text.startsWith(this.#told)) return ''
    const piece = text.slice(this.#told.length)
    this.#told = text
    return piece
  }
}

/** Where the first stop string begins at or after `from`. */
function firstStop(text: string, stops: readonly string[], from: number): number | undefined {
  const found = stops.map((stop) => text.indexOf(stop, from)).filter((at) => at >= 0)
  return found.length === 0 ? undefined : Math.min(...found)
}

/** Length of the longest end of `text` with which a stop string begins. */
function heldBack(text: string, stops: readonly string[]): number {
  let longest = 0
  for (const stop of stops)
    for (let length = Math.min(stop.length - 1, text.length); length > longest; length--)
      if (text.endsWith(stop.slice(0, length))) longest = length
  return longest
}
