/**
 * The tokenizer of a Hugging Face folder: the native `tokenizers` package plus what the files beside tokenizer.json say
 * (bos, eos, chat templates). Text is encoded without special tokens being added; templates write their own.
 */
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Tokenizer as NativeTokenizer } from 'tokenizers'
import { TunesmithError } from '../errors.ts'
import { Encoding } from './encoding.ts'
import { renamedTokenizer } from './escape.ts'

/** A token with its text and id. */
export interface Token {
  text: string
  id: number
}

/** An entry of tokenizer.json's `added_tokens`: matched in text before everything else. */
export interface AddedToken extends Token {
  /** Control tokens are special; others (such as `<think>` in some models) are ordinary text to a reader. */
  special: boolean
}

type Json = Record<string, unknown>

export class Tokenizer {
  readonly folder: string
  readonly bos: Token | undefined
  readonly eos: Token | undefined
  readonly pad: Token | undefined
  readonly unk: Token | undefined
  /** eos, and the further `eos_token_id`s of generation_config.json or config.json: what ends generation. */
  readonly stops: readonly Token[]
  readonly added: readonly AddedToken[]
  /** Largest id + 1; ids may have gaps. The embedding must have at least as many rows. */
  readonly vocabSize: number
  /** Whether encoding as the model's authors meant it starts with bos (tokenizer.json's post-processor). */
  readonly addsBos: boolean
  /** Chat templates by name; the one without a name is 'default'. Empty where the folder has none. */
  readonly chatTemplates: ReadonlyMap<string, string>
  /** tokenizer.json's decoder: how texts of the vocabulary become text again. */
  readonly decoder: unknown
  readonly #native: NativeTokenizer
  /** Made when the first escaped text comes. */
  #renamed: Promise<NativeTokenizer> | undefined

  private constructor(folder: string, native: NativeTokenizer, files: Files) {
    this.folder = folder
    this.#native = native
    this.added = addedTokens(files.tokenizer)
    this.vocabSize = vocabSize(files.tokenizer, this.added)
    const special = (key: string) => this.#special(files, key)
    this.bos = special('bos_token')
    this.eos = special('eos_token')
    this.pad = special('pad_token')
    this.unk = special('unk_token')
    this.stops = this.#stops(files)
    this.addsBos = this.bos !== undefined && startsWith(files.tokenizer.post_processor, this.bos.text)
    this.chatTemplates = files.templates
    this.decoder = files.tokenizer.decoder
  }

  /**
   * Reads tokenizer.json and, where they exist, tokenizer_config.json, special_tokens_map.json, chat_template.jinja,
   * generation_config.json and config.json of `folder`, and additional_chat_templates/*.jinja.
   *
   * @param modelFolder where the two configs of the model are, if not beside the tokenizer: the base of an adapter
   * @throws TunesmithError `ERR_TOKENIZER_NOT_FOUND` without tokenizer.json, `ERR_INVALID_TOKENIZER` where a file cannot
   * be used.
   */
  static async load(folder: string, modelFolder = folder): Promise<Tokenizer> {
    const path = join(folder, 'tokenizer.json')
    const text = await readOptional(path)
    if (text === undefined) {
      throw new TunesmithError(
        'ERR_TOKENIZER_NOT_FOUND',
        `${path} does not exist; the folder must hold the tokenizer as tokenizer.json (a "fast" tokenizer)`,
      )
    }
    const tokenizer = parseObject(text, path)
    let native: NativeTokenizer
    try {
      native = NativeTokenizer.fromString(text)
      // tokenizer.json may carry both from its author's last run; neither has a place in training.
      native.disableTruncation()
      native.disablePadding()
    } catch (error) {
      throw invalid(path, `it is not a tokenizer: ${(error as Error).message}`, error)
    }
    const configPath = join(folder, 'tokenizer_config.json')
    const config = await readObject(configPath)
    return new Tokenizer(folder, native, {
      tokenizer,
      config,
      configPath,
      specialTokensMap: await readObject(join(folder, 'special_tokens_map.json')),
      generationConfig: await readObject(join(modelFolder, 'generation_config.json')),
      modelConfig: await readObject(join(modelFolder, 'config.json')),
      templates: chatTemplates(
        config,
        await readOptional(join(folder, 'chat_template.jinja')),
        await additionalTemplates(folder),
        configPath,
      ),
    })
  }

  /** The id of a token by its exact text in the vocabulary, undefined where there is none. */
  id(text: string): number | undefined {
    return this.#native.tokenToId(text) ?? undefined
  }

  /** The vocabulary's text of an id. */
  token(id: number): string | undefined {
    return this.#native.idToToken(id) ?? undefined
  }

  /** Encodes texts on native threads, off the event loop, without adding special tokens. */
  async encodeBatch(texts: readonly string[]): Promise<Encoding[]> {
    if (texts.length === 0) return []
    const encodings = await this.#native.encodeBatch([...texts], { addSpecialTokens: false })
    return encodings.map((encoding, index) => new Encoding(encoding, texts[index]!))
  }

  /** The same for texts of which some are escaped. */
  async encodeTexts(texts: readonly { text: string; escaped?: string }[]): Promise<Encoding[]> {
    const escaped = texts.flatMap(({ escaped: text }) => (text === undefined ? [] : [text]))
    if (escaped.length === 0) return this.encodeBatch(texts.map(({ text }) => text))
    this.#renamed ??= renamedTokenizer(this)
    const native = await this.#renamed
    const special = await native.encodeBatch(escaped, { addSpecialTokens: false })
    const plain = await this.encodeBatch(
      texts.flatMap(({ text, escaped: other }) => (other === undefined ? [text] : [])),
    )
    let [nextSpecial, nextPlain] = [0, 0]
    return texts.map(({ text, escaped: other }) =>
      other === undefined ? plain[nextPlain++]! : new Encoding(special[nextSpecial++]!, text),
    )
  }

  async encode(text: string): Promise<Encoding> {
    return new Encoding(await this.#native.encode(text, null, { addSpecialTokens: false }), text)
  }

  /** Ids of texts with what the tokenizer's post-processor puts around them (bos, eos), as Transformers encodes a text. */
  async encodeWithSpecial(texts: readonly string[]): Promise<Int32Array[]> {
    if (texts.length === 0) return []
    const encodings = await this.#native.encodeBatch([...texts], { addSpecialTokens: true })
    return encodings.map((encoding, index) => new Encoding(encoding, texts[index]!).ids)
  }

  /** The text of `ids`; `skipSpecial` [true] leaves control tokens out. */
  async decode(ids: ArrayLike<number>, { skipSpecial = true } = {}): Promise<string> {
    return this.#native.decode(Array.from(ids), skipSpecial)
  }

  #special({ config, specialTokensMap, configPath }: Files, key: string): Token | undefined {
    const value = key in config ? config[key] : specialTokensMap[key]
    if (value === undefined || value === null) return undefined
    const text = typeof value === 'string' ? value : (value as Json).content
    if (typeof text !== 'string') throw invalid(configPath, `${key} is neither text nor an added token`)
    const id = this.id(text)
    if (id === undefined) throw invalid(configPath, `${key} ${JSON.stringify(text)} is not in the vocabulary`)
    return { text, id }
  }

  #stops({ generationConfig, modelConfig }: Files): Token[] {
    const stops = new Map<number, Token>()
    if (this.eos) stops.set(this.eos.id, this.eos)
    for (const id of [generationConfig.eos_token_id, modelConfig.eos_token_id].flat()) {
      const text = typeof id === 'number' && Number.isInteger(id) && id >= 0 ? this.token(id) : undefined
      if (text !== undefined) stops.set(id as number, { text, id: id as number })
    }
    return [...stops.values()]
  }
}

interface Files {
  tokenizer: Json
  config: Json
  configPath: string
  specialTokensMap: Json
  generationConfig: Json
  modelConfig: Json
  templates: Map<string, string>
}

function addedTokens(tokenizer: Json): AddedToken[] {
  const list = Array.isArray(tokenizer.added_tokens) ? (tokenizer.added_tokens as Json[]) : []
  return list.map(({ content, id, special }) => ({ text: String(content), id: Number(id), special: special === true }))
}

function vocabSize(tokenizer: Json, added: readonly AddedToken[]): number {
  const vocab = (tokenizer.model as Json | undefined)?.vocab
  let largest = -1
  // Unigram lists its pieces in order; the other models map text to id.
  if (Array.isArray(vocab)) largest = vocab.length - 1
  else for (const id of Object.values((vocab ?? {}) as Record<string, number>)) largest = Math.max(largest, id)
  for (const { id } of added) largest = Math.max(largest, id)
  return largest + 1
}

/** Whether a post-processor puts `text` before a single sequence. */
function startsWith(processor: unknown, text: string): boolean {
  if (typeof processor !== 'object' || processor === null) return false
  const { type, processors, single } = processor as Json
  if (type === 'Sequence' && Array.isArray(processors)) return processors.some((part) => startsWith(part, text))
  if (type !== 'TemplateProcessing' || !Array.isArray(single)) return false
  return ((single[0] as Json | undefined)?.SpecialToken as Json | undefined)?.id === text
}

/** A file beside the configuration wins over the configuration, as in Transformers. */
function chatTemplates(
  config: Json,
  file: string | undefined,
  others: readonly [string, string][],
  configPath: string,
): Map<string, string> {
  let templates: Map<string, string>
  try {
    templates = namedTemplates(config.chat_template)
  } catch (error) {
    throw invalid(configPath, (error as Error).message, error)
  }
  if (file !== undefined) templates.set('default', file)
  for (const [name, template] of others) templates.set(name, template)
  return templates
}

/**
 * The templates of a tokenizer_config.json by name; the one without a name is 'default'.
 *
 * @throws Error where `value` is neither text, a list of { name, template }, an object, nor absent
 */
export function namedTemplates(value: unknown): Map<string, string> {
  const templates = new Map<string, string>()
  if (typeof value === 'string') {
    templates.set('default', value)
  } else if (Array.isArray(value)) {
    for (const { name, template } of value as Json[]) {
      if (typeof name !== 'string' || typeof template !== 'string') {
        throw new Error('chat_template is a list, but not of { name, template }')
      }
      templates.set(name, template)
    }
  } else if (typeof value === 'object' && value !== null) {
    for (const [name, template] of Object.entries(value)) templates.set(name, String(template))
  } else if (value !== undefined && value !== null) {
    throw new Error('chat_template is neither text nor a list of { name, template }')
  }
  return templates
}

/** Templates for other purposes by name, e.g. tool_use, as Transformers 5 saves them. */
async function additionalTemplates(folder: string): Promise<[string, string][]> {
  const path = join(folder, 'additional_chat_templates')
  const names = (await readdir(path).catch(() => [])).filter((name) => name.endsWith('.jinja')).sort()
  return Promise.all(
    names.map(
      async (name): Promise<[string, string]> => [
        name.slice(0, -'.jinja'.length),
        (await readOptional(join(path, name))) ?? '',
      ],
    ),
  )
}

async function readOptional(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined
    throw invalid(path, message, error)
  }
}

async function readObject(path: string): Promise<Json> {
  const text = await readOptional(path)
  return text === undefined ? {} : parseObject(text, path)
}

function parseObject(text: string, path: string): Json {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    throw invalid(path, (error as Error).message, error)
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw invalid(path, 'it is not a JSON object')
  return value as Json
}

function invalid(path: string, reason: string, cause?: unknown): TunesmithError {
  return new TunesmithError('ERR_INVALID_TOKENIZER', `Cannot use ${path}: ${reason}`, { cause })
}
