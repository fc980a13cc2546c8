/**
 * The tokenizer as GGUF metadata. Two kinds are known to both sides: byte-level BPE (llama.cpp's `gpt2`), whose merges
 * are written, and SentencePiece BPE with byte fallback (`llama`), whose merges become scores: a token's score is minus
 * the rank of the merge that makes it, so that the same merge comes first on both sides.
 */
import { TunesmithError } from '../../errors.ts'
import { isObject, type JsonObject } from '../json.ts'
import { preTokenizerOf } from './pre-tokenizers.ts'
import { array, bool, type MetadataValue, string } from './values.ts'

/** llama.cpp's kinds of tokens. */
const tokenType = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const

export interface Vocabulary {
  metadata: [string, MetadataValue][]
  warnings: string[]
}

interface Entries {
  texts: string[]
  types: number[]
}

/**
 * @param tokenizer tokenizer.json, parsed
 * @param vocabSize rows of the embedding; ids without a token become unused ones
 * @param where the path of tokenizer.json, for errors
 * @throws ERR_GGUF_TOKENIZER where llama.cpp would tokenise differently
 */
export function vocabularyOf(tokenizer: JsonObject, vocabSize: number, where: string): Vocabulary {
  const { model } = tokenizer
  if (!isObject(model) || model.type !== 'BPE' || !isObject(model.vocab)) {
    const type = isObject(model) ? String(model.type) : 'none'
    throw new TunesmithError(
      'ERR_GGUF_TOKENIZER',
      `${where}: a ${type} tokenizer cannot be exported to GGUF; BPE can, byte-level or SentencePiece with byte fallback.`,
    )
  }
  const entries = entriesOf(tokenizer, model.vocab as Record<string, number>, vocabSize)
  const merges = mergesOf(model.merges)
  return model.byte_fallback === true
    ? sentencePiece(tokenizer, entries, merges, where)
    : byteLevel(tokenizer, entries, merges, where)
}

function entriesOf(tokenizer: JsonObject, vocab: Record<string, number>, vocabSize: number): Entries {
  const texts = Array.from({ length: vocabSize }, (_, id) => `[PAD${id}]`)
  const types = new Array<number>(vocabSize).fill(tokenType.unused)
  const set = (id: number, text: string, type: number): void => {
    if (id >= vocabSize) return
    texts[id] = text
    types[id] = type
  }
  for (const [text, id] of Object.entries(vocab)) set(id, text, tokenType.normal)
  const added = Array.isArray(tokenizer.added_tokens) ? (tokenizer.added_tokens as JsonObject[]) : []
  for (const { id, content, special } of added) {
    set(Number(id), String(content), special === true ? tokenType.control : tokenType.userDefined)
  }
  return { texts, types }
}

/** Pairs, whichever way the file spells them. */
function mergesOf(merges: unknown): [string, string][] {
  if (!Array.isArray(merges)) return []
  return merges.map((merge) => {
    if (Array.isArray(merge)) return merge as [string, string]
    // No token of these vocabularies has a space in it.
    const space = String(merge).indexOf(' ')
    return [String(merge).slice(0, space), String(merge).slice(space + 1)]
  })
}

function byteLevel(tokenizer: JsonObject, entries: Entries, merges: [string, string][], where: string): Vocabulary {
  const { name, warning } = preTokenizerOf(tokenizer, where)
  return {
    metadata: [
      ['tokenizer.ggml.model', string('gpt2')],
      ['tokenizer.ggml.pre', string(name)],
      ...listed(entries),
      [
        'tokenizer.ggml.merges',
        array(
          'string',
          merges.map(([left, right]) => `${left} ${right}`),
        ),
      ],
      ['tokenizer.ggml.add_space_prefix', bool(false)],
    ],
    warnings: warning === undefined ? [] : [warning],
  }
}

function sentencePiece(tokenizer: JsonObject, entries: Entries, merges: [string, string][], where: string): Vocabulary {
  const addsPrefix = spacePrefix(tokenizer, where)
  const { texts, types } = entries
  const ranks = new Map<string, number>()
  merges.forEach(([left, right], rank) => {
    if (!ranks.has(left + right)) ranks.set(left + right, rank)
  })
  const { unk_token: unknown } = tokenizer.model as JsonObject
  const scores = texts.map((text, id) => {
    if (/^<0x[0-9A-F]{2}>$/.test(text) && types[id] === tokenType.normal) types[id] = tokenType.byte
    if (text === unknown) types[id] = tokenType.unknown
    const rank = ranks.get(text)
    // A token that no merge makes is never put together, only looked up.
    return rank === undefined ? -merges.length - 1 : -rank
  })
  return {
    metadata: [
      ['tokenizer.ggml.model', string('llama')],
      ['tokenizer.ggml.pre', string('default')],
      ...listed(entries),
      ['tokenizer.ggml.scores', array('float32', scores)],
      ['tokenizer.ggml.add_space_prefix', bool(addsPrefix)],
    ],
    warnings: [],
  }
}

function listed({ texts, types }: Entries): [string, MetadataValue][] {
  return [
    ['tokenizer.ggml.tokens', array('string', texts)],
    ['tokenizer.ggml.token_type', array('int32', types)],
  ]
}

/** Whether a space comes before the first word. Spaces must become ▁ and nothing else may happen to the text. */
function spacePrefix({ normalizer, pre_tokenizer: pre }: JsonObject, where: string): boolean {
  const steps = flatten(normalizer, 'normalizers')
  const cuts = flatten(pre, 'pretokenizers')
  const describe = JSON.stringify([...steps, ...cuts])
  const replaces = steps.some(
    (step) => step.type === 'Replace' && isObject(step.pattern) && step.pattern.String === ' ' && step.content === '▁',
  )
  const metaspace = cuts.find((cut) => cut.type === 'Metaspace')
  const rest = [
    ...steps.filter((step) => step.type !== 'Replace' && !(step.type === 'Prepend' && step.prepend === '▁')),
    // Gemma cuts at spaces that are none any more.
    ...cuts.filter((cut) => cut !== metaspace && !(cut.type === 'Split' && replaces)),
  ]
  if (rest.length > 0 || !(replaces || metaspace)) {
    throw new TunesmithError(
      'ERR_GGUF_TOKENIZER',
      `${where}: llama.cpp does not treat text like this tokenizer (${describe}), so the model would read other tokens there.`,
    )
  }
  if (metaspace)
    return metaspace.prepend_scheme === undefined
      ? metaspace.add_prefix_space !== false
      : metaspace.prepend_scheme !== 'never'
  return steps.some(({ type }) => type === 'Prepend')
}

function flatten(step: unknown, list: string): JsonObject[] {
  if (!isObject(step)) return []
  if (step.type !== 'Sequence') return [step]
  return Array.isArray(step[list]) ? (step[list] as unknown[]).flatMap((part) => flatten(part, list)) : []
}
