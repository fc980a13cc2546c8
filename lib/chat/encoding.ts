/**
 * Token ids of one text, with the tokens of a character range. Native offsets count Unicode code points, JavaScript
 * counts UTF-16 units: every position is converted here and nowhere else.
 */

/** What is used of an encoding of `tokenizers`, whose own declarations do not pass a consumer's type check. */
interface NativeEncoding {
  getLength(): number
  getIds(): number[]
  charToToken(codePoint: number): number | null
  tokenToChars(token: number): [number, number] | null | undefined
}

export class Encoding {
  readonly text: string
  readonly #native: NativeEncoding
  #ids: Int32Array | undefined
  /** Whether positions differ at all. */
  readonly #astral: boolean

  constructor(native: NativeEncoding, text: string) {
    this.#native = native
    this.text = text
    this.#astral = /[\ud800-\udbff][\udc00-\udfff]/.test(text)
  }

  get length(): number {
    return this.#native.getLength()
  }

  get ids(): Int32Array {
    this.#ids ??= int32(this.#native.getIds())
    return this.#ids
  }

  /**
   * The tokens [first, end) that overlap the UTF-16 range [start, stop) of the text; undefined where none does.
   * `startsBefore` and `endsAfter` tell whether the outer tokens reach beyond the range.
   */
  range(start: number, stop: number): TokenRange | undefined {
    if (stop <= start) return undefined
    const from = this.#codePoints(start)
    const to = from + (this.#astral ? countCodePoints(this.text, start, stop) : stop - start)
    let first = this.#native.charToToken(from)
    // Characters that a normalizer removed belong to no token: the next one that has a token stands for them.
    for (let at = from + 1; first === null && at < to; at++) first = this.#native.charToToken(at)
    if (first === null) return undefined
    // A character cut into several tokens (bytes of an emoji) is found by its first: go on while tokens still overlap.
    let last = first
    for (let at = to - 1; at >= from; at--) {
      const found = this.#native.charToToken(at)
      if (found === null) continue
      last = Math.max(first, found)
      break
    }
    const length = this.length
    let end = last + 1
    while (end < length && this.#overlaps(end, from, to)) end++
    return {
      first,
      end,
      startsBefore: this.#offsets(first)[0] < from,
      endsAfter: this.#offsets(end - 1)[1] > to,
    }
  }

  /** UTF-16 range of a token. */
  span(token: number): [number, number] {
    const [start, stop] = this.#offsets(token)
    return this.#astral ? [utf16Index(this.text, start), utf16Index(this.text, stop)] : [start, stop]
  }

  #overlaps(token: number, from: number, to: number): boolean {
    const [start, stop] = this.#offsets(token)
    return start < to && stop > from
  }

  #offsets(token: number): [number, number] {
    return this.#native.tokenToChars(token) ?? [0, 0]
  }

  #codePoints(index: number): number {
    return this.#astral ? countCodePoints(this.text, 0, index) : index
  }
}

/** The loop is four times as fast as Int32Array.from and new Int32Array on lists that native code has made. */
function int32(list: readonly number[]): Int32Array {
  const { length } = list
  const array = new Int32Array(length)
  for (let i = 0; i < length; i++) array[i] = list[i]!
  return array
}

export interface TokenRange {
  first: number
  end: number
  startsBefore: boolean
  endsAfter: boolean
}

/** Code points that start in [from, to), UTF-16 positions. A lone half counts as one, as the tokenizer sees it (U+FFFD). */
function countCodePoints(text: string, from: number, to: number): number {
  let count = to - from
  for (let i = from; i + 1 < to; i++) {
    if ((text.charCodeAt(i) & 0xfc00) === 0xd800 && (text.charCodeAt(i + 1) & 0xfc00) === 0xdc00) {
      count--
      i++
    }
  }
  return count
}

function utf16Index(text: string, codePoint: number): number {
  let index = 0
  for (let i = 0; i < codePoint; i++) index += (text.codePointAt(index) ?? 0) > 0xffff ? 2 : 1
  return index
}
