/**
 * The bytes that a token stands for, from the vocabulary's text of it and the tokenizer's decoder. A byte-level token may
 * be a piece of a character, which decoding alone would show as U+FFFD.
 */
import type { Tokenizer } from './tokenizer.ts'

type Json = Record<string, unknown>

export class TokenBytes {
  readonly #tokenizer: Tokenizer
  readonly #added: ReadonlyMap<number, string>
  readonly #byteLevel: boolean
  readonly #byteFallback: boolean
  /** Texts that stand for others, as `▁` for a space. */
  readonly #replacements: readonly [string, string][]

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer
    this.#added = new Map(tokenizer.added.map(({ id, text }) => [id, text]))
    const decoders = flatten(tokenizer.decoder)
    this.#byteLevel = decoders.some(({ type }) => type === 'ByteLevel')
    this.#byteFallback = decoders.some(({ type }) => type === 'ByteFallback')
    this.#replacements = decoders.flatMap(replacement)
  }

  of(id: number): Uint8Array {
    const added = this.#added.get(id)
    if (added !== undefined) return Buffer.from(added)
    const text = this.#tokenizer.token(id) ?? ''
    if (this.#byteLevel) return byteLevelBytes(text)
    const byte = this.#byteFallback ? /^<0x([0-9A-Fa-f]{2})>$/.exec(text) : null
    if (byte) return Uint8Array.of(Number.parseInt(byte[1]!, 16))
    return Buffer.from(this.#replacements.reduce((shown, [from, to]) => shown.replaceAll(from, to), text))
  }
}

/** The parts of a decoder, Sequences opened. */
function flatten(decoder: unknown): Json[] {
  if (typeof decoder !== 'object' || decoder === null) return []
  const { type, decoders } = decoder as Json
  return type === 'Sequence' && Array.isArray(decoders) ? decoders.flatMap(flatten) : [decoder as Json]
}

function replacement(decoder: Json): [string, string][] {
  if (decoder.type === 'Metaspace') return [[String(decoder.replacement ?? '▁'), ' ']]
  const pattern = (decoder.pattern as Json | undefined)?.String
  return decoder.type === 'Replace' && typeof pattern === 'string' ? [[pattern, String(decoder.content)]] : []
}

/** GPT-2's printable stand-ins for bytes: those that print stand for themselves, the others follow from U+0100. */
const BYTE_OF: ReadonlyMap<string, number> = (() => {
  const prints = (byte: number) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174
  let next = 0x100
  return new Map(
    Array.from({ length: 256 }, (_, byte) => [String.fromCharCode(prints(byte) ? byte : next++), byte] as const),
  )
})()

function byteLevelBytes(text: string): Uint8Array {
  const bytes: number[] = []
  for (const character of text) {
    const byte = BYTE_OF.get(character)
    if (byte === undefined) bytes.push(...Buffer.from(character))
    else bytes.push(byte)
  }
  return Uint8Array.from(bytes)
}
