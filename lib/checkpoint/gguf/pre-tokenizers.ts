/**
 * The names by which llama.cpp knows how a byte-level BPE tokenizer cuts text before it merges. llama.cpp has the
 * expressions built in, so a tokenizer is recognised by its own ones, whatever its vocabulary; one that llama.cpp does
 * not know would tokenise differently there, in silence, and is refused.
 */
import { TunesmithError } from '../../errors.ts'
import { isObject, type JsonObject } from '../json.ts'

export interface PreTokenizer {
  name: string
  /** What llama.cpp leaves out. */
  warning?: string
}

const contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
const gpt2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
const words = (digits: string) =>
  `${contractions}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`
const deepseek = [
  '\\p{N}{1,3}',
  '[一-龥\u3040-ゟ゠-ヿ]+',
  '[!"#$%&\'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+',
]
const tekken =
  '[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+'

/** By the cuts, and by whether words of the vocabulary are taken whole (`ignore_merges`); undefined: either. */
const known: readonly { cuts: readonly string[]; ignoreMerges?: boolean; name: string }[] = [
  { cuts: [gpt2], name: 'gpt-2' },
  { cuts: ['digits', gpt2], name: 'smollm' },
  { cuts: [words('\\p{N}{1,3}')], ignoreMerges: true, name: 'llama-bpe' },
  { cuts: [words('\\p{N}{1,3}')], ignoreMerges: false, name: 'dbrx' },
  { cuts: [words('\\p{N}')], name: 'qwen2' },
  { cuts: deepseek, name: 'deepseek-v3' },
  { cuts: [tekken], ignoreMerges: true, name: 'tekken' },
]

/**
 * @param tokenizer a tokenizer.json with a byte-level BPE model
 * @param where its path, for errors
 * @throws ERR_GGUF_TOKENIZER where llama.cpp has no such pre-tokenizer
 */
export function preTokenizerOf(tokenizer: JsonObject, where: string): PreTokenizer {
  const cuts = cutsOf(tokenizer.pre_tokenizer, where)
  const ignoreMerges = isObject(tokenizer.model) && tokenizer.model.ignore_merges === true
  const found = known.find(
    (entry) =>
      entry.cuts.length === cuts.length &&
      entry.cuts.every((cut, index) => cut === cuts[index]) &&
      (entry.ignoreMerges === undefined || entry.ignoreMerges === ignoreMerges),
  )
  if (!found) throw unknown(where, cuts.map((cut) => JSON.stringify(cut)).join(' then '))
  const normalizer = normalizerOf(tokenizer.normalizer, where)
  if (normalizer === undefined) return { name: found.name }
  return {
    name: found.name,
    warning: `the tokenizer normalises text to ${normalizer} first, llama.cpp does not: text in another form becomes other tokens there`,
  }
}

/** The expressions, in their order, at which text is cut; byte-level steps that cut nothing are left out. */
function cutsOf(pre: unknown, where: string): string[] {
  if (!isObject(pre)) throw unknown(where, 'none')
  if (pre.type === 'Sequence') {
    const list = Array.isArray(pre.pretokenizers) ? pre.pretokenizers : []
    return list.flatMap((part) => cutsOf(part, where))
  }
  if (pre.type === 'ByteLevel') {
    if (pre.add_prefix_space === true) throw unknown(where, 'ByteLevel with add_prefix_space')
    return pre.use_regex === false ? [] : [gpt2]
  }
  if (pre.type === 'Digits' && pre.individual_digits === true) return ['digits']
  if (pre.type === 'Split' && isObject(pre.pattern) && pre.invert !== true) {
    const { Regex: regex } = pre.pattern
    const isolated = pre.behavior === 'Isolated' || (pre.behavior === 'Removed' && pre.invert === true)
    if (typeof regex === 'string' && isolated) return [regex]
  }
  throw unknown(where, JSON.stringify(pre))
}

function normalizerOf(normalizer: unknown, where: string): string | undefined {
  if (normalizer === null || normalizer === undefined) return undefined
  if (isObject(normalizer)) {
    if (normalizer.type === 'NFC') return 'NFC'
    if (normalizer.type === 'Sequence' && Array.isArray(normalizer.normalizers)) {
      const names = normalizer.normalizers.map((part) => normalizerOf(part, where)).filter((name) => name !== undefined)
      if (names.length < 2) return names[0]
    }
  }
  throw new TunesmithError(
    'ERR_GGUF_TOKENIZER',
    `${where}: llama.cpp has no normalizer like ${JSON.stringify(normalizer)}, so the model would read other tokens there`,
  )
}

function unknown(where: string, what: string): TunesmithError {
  const names = known.map(({ name }) => name).join(', ')
  return new TunesmithError(
    'ERR_GGUF_TOKENIZER',
    `${where}: llama.cpp does not know this pre-tokenizer (${what}), so the model would read other tokens there. ` +
      `Byte-level tokenizers are exported as one of ${names}; SentencePiece ones with byte fallback as llama.`,
  )
}
