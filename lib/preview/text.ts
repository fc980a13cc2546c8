/** Tokens as text that shows everything: white space, pieces of characters, and what a terminal would obey or hide. */
import type { PreviewToken } from './preview.ts'

/** A stretch of a token as it is shown. */
export interface Shown {
  text: string
  /** It stands for something that is not seen: white space, a byte, a control character. */
  stand: boolean
  /** A line ends after it. */
  breaks?: true
}

const STANDS: Record<string, string> = { ' ': '·', '\t': '→', '\r': '␍', '\n': '↵', '\u00a0': '⍽' }

/** Other white space, control and format characters (direction marks included), noncharacters and private use. */
const UNSEEN = /[\p{Z}\p{C}]/u

/** What is shown for the bytes of a token. Bytes that are no whole character are given in hexadecimal. */
export function shownBytes(bytes: Uint8Array): Shown[] {
  const shown: Shown[] = []
  for (let at = 0; at < bytes.length; ) {
    const length = characterLength(bytes, at)
    if (length === 0) {
      let end = at + 1
      while (end < bytes.length && characterLength(bytes, end) === 0) end++
      const hex = Array.from(bytes.subarray(at, end), (byte) => byte.toString(16).padStart(2, '0').toUpperCase())
      shown.push({ text: `⟨${hex.join(' ')}⟩`, stand: true })
      at = end
      continue
    }
    const character = Buffer.from(bytes.subarray(at, at + length)).toString()
    at += length
    const last = shown.at(-1)
    if (STANDS[character] !== undefined) {
      shown.push({ text: STANDS[character], stand: true, ...(character === '\n' && { breaks: true as const }) })
    } else if (UNSEEN.test(character)) {
      const code = character.codePointAt(0)!.toString(16).toUpperCase().padStart(4, '0')
      shown.push({ text: `⟨U+${code}⟩`, stand: true })
    } else if (last && !last.stand) {
      last.text += character
    } else {
      shown.push({ text: character, stand: false })
    }
  }
  return shown
}

/** The same as one string without line breaks. */
export function tokenText(bytes: Uint8Array): string {
  return shownBytes(bytes)
    .map(({ text }) => text)
    .join('')
}

/** Bytes of the well-formed UTF-8 character that starts at `at` (Unicode 16, table 3-7); 0 where none does. */
function characterLength(bytes: Uint8Array, at: number): number {
  const first = bytes[at]!
  if (first < 0x80) return 1
  const length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2
  if (first < 0xc2 || first > 0xf4 || at + length > bytes.length) return 0
  for (let i = 1; i < length; i++) if ((bytes[at + i]! & 0xc0) !== 0x80) return 0
  const second = bytes[at + 1]!
  if (first === 0xe0 && second < 0xa0) return 0
  if (first === 0xed && second > 0x9f) return 0
  if (first === 0xf0 && second < 0x90) return 0
  if (first === 0xf4 && second > 0x8f) return 0
  return length
}

/** A float32 weight as a person wrote it: 0.1 and not 0.10000000149011612. */
export function weightText(weight: number): string {
  for (let digits = 1; digits < 9; digits++) {
    const text = weight.toPrecision(digits)
    if (Math.fround(Number(text)) === Math.fround(weight)) return String(Number(text))
  }
  return String(weight)
}

/** Tokens of one turn side by side. */
export interface TurnTokens {
  role: string
  tokens: PreviewToken[]
}

export function turnsOf(tokens: readonly PreviewToken[]): TurnTokens[] {
  const turns: TurnTokens[] = []
  let last: PreviewToken | undefined
  for (const token of tokens) {
    if (!last || last.turn.index !== token.turn.index) turns.push({ role: token.turn.role, tokens: [] })
    turns.at(-1)!.tokens.push(token)
    last = token
  }
  return turns
}
