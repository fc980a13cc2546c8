import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { ChatTemplate } from '../../lib/chat/template.ts'
import { Tokenizer } from '../../lib/chat/tokenizer.ts'
import type { Conversation, Message } from '../../lib/data/conversation.ts'
import { shared } from '../shared.ts'

export interface ToyTokenizer {
  special?: readonly string[]
  /** Added tokens that are not special. */
  added?: readonly string[]
  /** Pairs of byte-level pieces; `Ċ` is a newline, `Ġ` a space. */
  merges?: readonly [string, string][]
  bos?: unknown
  eos?: unknown
  addsBos?: boolean
  config?: Record<string, unknown>
  files?: Record<string, unknown>
}

/** GPT-2's printable stand-ins for bytes: those that print stand for themselves, the others follow from U+0100. */
const BYTES: readonly string[] = (() => {
  const prints = (byte: number) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174
  let next = 0x100
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(prints(byte) ? byte : next++))
})()

/** Writes a byte-level tokenizer of 256 byte tokens and a few more, and loads it. */
export async function toyTokenizer(folder: string, options: ToyTokenizer = {}): Promise<Tokenizer> {
  const { special = [], added = [], merges = [], bos, eos, addsBos = false, config = {}, files = {} } = options
  await mkdir(folder, { recursive: true })
  const pieces = [...BYTES, ...merges.map((pair) => pair.join(''))]
  const extra = [...special, ...added].map((content, i) => ({
    id: pieces.length + i,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: i < special.length,
  }))
  const bosText = typeof bos === 'string' ? bos : undefined
  const tokenizer = {
    version: '1.0',
    truncation: { direction: 'Right', max_length: 4, strategy: 'LongestFirst', stride: 0 },
    padding: null,
    added_tokens: extra,
    normalizer: null,
    // GPT-2's pattern keeps newlines apart; with merges across them it must not be used.
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: merges.length === 0 },
    post_processor: addsBos
      ? {
          type: 'TemplateProcessing',
          single: [{ SpecialToken: { id: bosText, type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
          pair: [{ Sequence: { id: 'A', type_id: 0 } }, { Sequence: { id: 'B', type_id: 1 } }],
          special_tokens: {
            [bosText!]: { id: bosText, ids: [extra.find(({ content }) => content === bosText)!.id], tokens: [bosText] },
          },
        }
      : null,
    decoder: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      vocab: Object.fromEntries(pieces.map((piece, id) => [piece, id])),
      merges: merges.map((pair) => pair.join(' ')),
    },
  }
  const content: Record<string, unknown> = {
    'tokenizer.json': tokenizer,
    'tokenizer_config.json': {
      ...(bos !== undefined && { bos_token: bos }),
      ...(eos !== undefined && { eos_token: eos }),
      ...config,
    },
    ...files,
  }
  for (const [name, value] of Object.entries(content)) {
    await writeFile(join(folder, name), typeof value === 'string' ? value : JSON.stringify(value))
  }
  return Tokenizer.load(folder)
}

const loaded = new Map<string, Promise<Tokenizer>>()

/** A tokenizer of ../shared, read once for all tests. */
export function realTokenizer(name: string): Promise<Tokenizer> {
  const known = loaded.get(name) ?? Tokenizer.load(shared(`tokenizers/${name}`))
  loaded.set(name, known)
  return known
}

export function template(tokenizer: Tokenizer, source: string, variables: Record<string, unknown> = {}): ChatTemplate {
  return new ChatTemplate(tokenizer, {
    name: 'test',
    sources: new Map([['default', source]]),
    variables,
    now: new Date(2026, 0, 5, 14, 3, 9),
  })
}

/** `['user', 'Hi'], ['assistant', 'Hello']` as a conversation. */
export function conversation(...turns: [Message['role'], string, Partial<Message>?][]): Conversation {
  return {
    messages: turns.map(([role, content, more]) => ({ role, content, ...more })),
    source: { file: 'train.jsonl', line: 3 },
  }
}

/** Text with astral characters, combining marks, newlines and spaces at its ends; never blank. */
export const words: fc.Arbitrary<string> = fc
  .array(
    fc.oneof(
      fc.string({ unit: 'grapheme', maxLength: 12 }),
      fc.constantFrom(' ', '\n', '\n\n', '😀', '𝕏', 'é', '{{', '%}', '<'),
    ),
    {
      minLength: 1,
      maxLength: 5,
    },
  )
  .map((parts) => parts.join(''))
  .filter((text) => text.trim() !== '' && !text.includes('think>') && !text.includes('<|'))

/** Optional system turn, then one to four exchanges. */
export const dialogues: fc.Arbitrary<Conversation> = fc
  .record({
    system: fc.option(words, { nil: undefined }),
    exchanges: fc.array(fc.tuple(words, words), { minLength: 1, maxLength: 4 }),
  })
  .map(({ system, exchanges }) =>
    conversation(
      ...(system === undefined ? [] : [['system', system] as [Message['role'], string]]),
      ...exchanges.flatMap(([question, answer]): [Message['role'], string][] => [
        // So that characters of two UTF-16 units stand before every span.
        ['user', `😀${question}`],
        ['assistant', answer],
      ]),
    ),
  )
