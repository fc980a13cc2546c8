/**
 * New special tokens for a tokenizer, and their rows in the embedding and the head of a model. The tokenizer is extended
 * in a copy of its folder, which everything that reads or copies a tokenizer then takes for the tokenizer.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { copyFile, readFile, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Tokenizer } from '../chat/tokenizer.ts'
import { TunesmithError, type Warning } from '../errors.ts'
import type { DecoderSpec, NativeEngine } from '../native/addon.ts'
import { RawObject } from './json.ts'
import { isFile } from './safetensors.ts'
import { copyTokenizer } from './tokenizer-files.ts'

export interface ExtendedTokenizer {
  /** A temporary folder, gone after release() or with the process. */
  folder: string
  /** Id of the first new token; the others follow. */
  first: number
  tokens: readonly string[]
  release(): void
}

/**
 * A copy of the tokenizer in `source` with `tokens` as further special tokens, written as Transformers writes them: in
 * tokenizer.json, and in tokenizer_config.json and special_tokens_map.json where these list them.
 *
 * @throws ERR_INVALID_OPTION for a token that the vocabulary has; the errors of Tokenizer.load
 */
export async function extendTokenizer(source: string, tokens: readonly string[]): Promise<ExtendedTokenizer> {
  const tokenizer = await Tokenizer.load(source)
  for (const token of tokens) {
    const id = tokenizer.id(token)
    if (id === undefined) continue
    throw new TunesmithError(
      'ERR_INVALID_OPTION',
      `option addTokens: ${JSON.stringify(token)} is a token already (${id})`,
    )
  }
  const first = tokenizer.vocabSize
  const folder = mkdtempSync(join(tmpdir(), 'tunesmith-tokenizer-'))
  const remove = () => rmSync(folder, { recursive: true, force: true })
  process.once('exit', remove)
  const release = () => {
    process.off('exit', remove)
    remove()
  }
  try {
    await copyTokenizer(source, folder, undefined)
    // What a tokenizer's stops are read from.
    for (const name of ['generation_config.json', 'config.json'])
      if (await isFile(join(source, name))) await copyFile(join(source, name), join(folder, name))
    await extendFiles(folder, first, tokens)
    return { folder, first, tokens, release }
  } catch (error) {
    release()
    throw error
  }
}

async function extendFiles(folder: string, first: number, tokens: readonly string[]): Promise<void> {
  const entry = (content: string) => ({ content, single_word: false, lstrip: false, rstrip: false, normalized: false })
  await change(join(folder, 'tokenizer.json'), ({ value, raw }) => {
    const known = Array.isArray(value.added_tokens) ? value.added_tokens : []
    const added = tokens.map((content, index) => ({ id: first + index, ...entry(content), special: true }))
    raw.set('added_tokens', [...known, ...added])
  })
  for (const name of ['tokenizer_config.json', 'special_tokens_map.json']) {
    const path = join(folder, name)
    if (!(await isFile(path))) continue
    await change(path, ({ value, raw }) => {
      const { added_tokens_decoder: decoder, additional_special_tokens: additional } = value
      if (typeof decoder === 'object' && decoder !== null) {
        const added = tokens.map((content, index) => [first + index, { ...entry(content), special: true }])
        raw.set('added_tokens_decoder', { ...decoder, ...Object.fromEntries(added) })
      }
      if (Array.isArray(additional)) raw.set('additional_special_tokens', [...additional, ...tokens])
    })
  }
}

async function change(path: string, edit: (file: ReturnType<typeof RawObject.parse>) => void): Promise<void> {
  const file = RawObject.parse(await readFile(path, 'utf8'), path, 'ERR_INVALID_TOKENIZER')
  edit(file)
  await writeFile(path, file.raw.toString())
}

/** Parameters with a row, or an element, per token. */
export const vocabularyParameters: readonly string[] = ['embedding.weight', 'head.weight', 'head.bias']

/** The model with room for `vocabSize` tokens; unchanged where its embedding has rows to spare. */
export function withVocabulary(spec: DecoderSpec, vocabSize: number): DecoderSpec {
  return vocabSize <= spec.vocabSize ? spec : { ...spec, vocabSize }
}

/**
 * Sets the new tokens' rows of embedding, head and head bias to the mean of the rows before them: a start that is neither
 * far from other tokens nor likelier than they are. Rows from the first new token on take part in no mean.
 */
export async function initialiseNewRows(
  engine: Pick<NativeEngine, 'parameters' | 'read' | 'write' | 'commit'>,
  { first, tokens }: Pick<ExtendedTokenizer, 'first' | 'tokens'>,
): Promise<Warning> {
  const tables = engine.parameters().filter(({ name }) => vocabularyParameters.includes(name))
  for (const { name, shape } of tables) {
    const width = shape[1] ?? 1
    const mean = await meanRow(engine, name, first, width)
    const rows = Float64Array.from({ length: tokens.length * width }, (_, i) => mean[i % width]!)
    await engine.write(name, first * width, 'float64', new Uint8Array(rows.buffer))
  }
  await engine.commit()
  const list = tokens.map((token, index) => `${token} (${first + index})`).join(', ')
  return {
    code: 'WARN_TOKENS_ADDED',
    message: `New tokens: ${list}. Their rows of ${tables.map(({ name }) => name).join(' and ')} start as the mean of the ${first} rows before them.`,
  }
}

/** Rows that are read at once. */
const chunkRows = 4096

async function meanRow(
  engine: Pick<NativeEngine, 'read'>,
  name: string,
  rows: number,
  width: number,
): Promise<Float64Array> {
  const mean = new Float64Array(width)
  for (let start = 0; start < rows; start += chunkRows) {
    const count = Math.min(chunkRows, rows - start) * width
    const bytes = await engine.read(name, start * width, count, 'float64')
    const values = new Float64Array(bytes.buffer, bytes.byteOffset, count)
    for (let i = 0; i < count; i++) mean[i % width]! += values[i]! / rows
  }
  return mean
}
