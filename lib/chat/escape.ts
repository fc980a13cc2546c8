/**
 * controlTokensInText 'escape': what a row spells in its own words stays words, even where it spells a control token.
 *
 * Look-alikes are broken by a mark before rendering. Whatever control token stands in the rendering then is the
 * template's own; it is written under another name, the marks are taken out, and the whole is tokenised once by a
 * tokenizer that knows control tokens by those names only. So a look-alike is cut into tokens with the text around it, as
 * Transformers does with split_special_tokens: `a<|im_end|>` may begin with a token `a<`. At the template's own control
 * tokens nothing changes. Other added tokens (`<think>` in some models) stay tokens, in text as well.
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Tokenizer as NativeTokenizer } from 'tokenizers'
import type { Conversation } from '../data/conversation.ts'
import { RowProblem, visitStrings } from '../data/rows.ts'
import { TunesmithError } from '../errors.ts'
import { ControlTokens } from './control-tokens.ts'
import { mapStrings } from './map-strings.ts'
import type { Tokenizer } from './tokenizer.ts'
import type { WeightedText } from './weights.ts'

/** Stands after the first character of a look-alike while it is rendered. */
const MARK = '\ufdd2'
/** Fills a control token's other name to its length. */
const FILL = '\ufdd3'
/** First code point of such names, one per token: private use. */
const FIRST_NAME = 0x100000

type Json = Record<string, unknown>

export class Escaper {
  readonly #tokens: ControlTokens

  constructor(tokenizer: Tokenizer) {
    this.#tokens = new ControlTokens(tokenizer)
  }

  /**
   * The conversation with its look-alikes broken; the same object where it has none.
   *
   * @throws RowProblem where it contains the characters that escaping itself needs
   */
  mark(conversation: Conversation): Conversation {
    let found = false
    const look = (text: string, field: string) => {
      checkFree(text, field)
      found ||= this.#tokens.find(text) !== undefined
    }
    for (const [index, message] of conversation.messages.entries()) visitStrings(message, `messages[${index}]`, look)
    visitStrings(conversation.tools ?? [], 'tools', look)
    if (!found) return conversation
    return {
      ...conversation,
      messages: this.#broken(conversation.messages) as Conversation['messages'],
      ...(conversation.tools && { tools: this.#broken(conversation.tools) as unknown[] }),
    }
  }

  /** A rendering of a marked conversation, without marks: as it reads, and as it is tokenised. */
  finish(weighted: WeightedText): WeightedText {
    const { text } = weighted
    if (!text.includes(MARK)) return weighted
    const at = (position: number) => position - count(text, MARK, position)
    return {
      ...weighted,
      text: text.replaceAll(MARK, ''),
      escaped: this.#tokens.replace(text, otherName).replaceAll(MARK, ''),
      baseFrom: at(weighted.baseFrom),
      spans: weighted.spans.map((span) => ({ ...span, start: at(span.start), end: at(span.end) })),
    }
  }

  /** Text that no template touches: every control token in it is a look-alike. */
  text(weighted: WeightedText): WeightedText {
    checkFree(weighted.text, 'text')
    return this.#tokens.find(weighted.text) === undefined ? weighted : { ...weighted, escaped: weighted.text }
  }

  #broken(value: unknown): unknown {
    const broken = (text: string) => this.#break(text)
    return mapStrings(value, broken, broken)
  }

  #break(spelt: string): string {
    return this.#tokens.replace(spelt, (_, token) => {
      const first = String.fromCodePoint(token.codePointAt(0)!)
      return first + MARK + token.slice(first.length)
    })
  }
}

function checkFree(text: string, field: string): void {
  const index = text.search(/[\ufdd2\ufdd3]|[\u{100000}-\u{10fffd}]\ufdd3/u)
  if (index < 0) return
  const code = text.codePointAt(index)!.toString(16).toUpperCase()
  throw new RowProblem(
    field,
    `contains the noncharacter U+${code}, which controlTokensInText "escape" needs; remove it`,
  )
}

function count(text: string, character: string, end: number): number {
  let found = 0
  for (let at = text.indexOf(character); at >= 0 && at < end; at = text.indexOf(character, at + 1)) found++
  return found
}

/** As many code points as the token has, so that offsets stay. */
function otherName(index: number, text: string): string {
  return String.fromCodePoint(FIRST_NAME + index) + FILL.repeat(Array.from(text).length - 1)
}

/**
 * The native tokenizer of `tokenizer`, knowing special tokens by their other names only.
 *
 * @throws TunesmithError `ERR_INVALID_TOKENIZER` where renaming changes ids
 */
export async function renamedTokenizer(tokenizer: Tokenizer): Promise<NativeTokenizer> {
  const path = join(tokenizer.folder, 'tokenizer.json')
  const json = JSON.parse(await readFile(path, 'utf8')) as Json
  const names = new Map(new ControlTokens(tokenizer).texts.map((text, index) => [text, otherName(index, text)]))
  const rename = (text: string) => names.get(text) ?? text
  for (const token of json.added_tokens as Json[]) token.content = rename(String(token.content))
  const model = json.model as Json
  if (Array.isArray(model.vocab)) {
    model.vocab = model.vocab.map(([piece, ...rest]: [string, ...unknown[]]) => [rename(piece), ...rest])
  } else {
    model.vocab = Object.fromEntries(Object.entries(model.vocab as Json).map(([piece, id]) => [rename(piece), id]))
  }
  if (typeof model.unk_token === 'string') model.unk_token = rename(model.unk_token)
  json.post_processor = withoutTemplates(json.post_processor)
  json.truncation = null
  json.padding = null
  const native = NativeTokenizer.fromString(JSON.stringify(json))
  const wrong = [...names].find(([text, name]) => tokenizer.id(text) !== (native.tokenToId(name) ?? undefined))
  if (wrong === undefined) return native
  throw new TunesmithError(
    'ERR_INVALID_TOKENIZER',
    `${path} cannot be used with controlTokensInText "escape": its token ${wrong[0]} has no id of its own`,
  )
}

/** Only what trims offsets; templates add special tokens, which nobody asks for here. */
function withoutTemplates(processor: unknown): unknown {
  const { type, processors } = (processor ?? {}) as Json
  if (type === 'ByteLevel') return processor
  if (type !== 'Sequence' || !Array.isArray(processors)) return null
  const kept = processors.map(withoutTemplates).filter((part) => part !== null)
  return kept.length > 0 ? { type, processors: kept } : null
}
