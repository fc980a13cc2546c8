/**
 * The tokenizer's part of a checkpoint: files pass through byte for byte, and the chat template that training used goes
 * with them in the way Transformers 5 writes it (chat_template.jinja, and none in tokenizer_config.json).
 */
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { TunesmithError, type Warning } from '../errors.ts'
import { isObject, RawObject } from './json.ts'
import { isFile } from './safetensors.ts'

const templateFile = 'chat_template.jinja'
/** Further templates by name, e.g. tool_use.jinja. */
const templateFolder = 'additional_chat_templates'
const configFile = 'tokenizer_config.json'

const plainFiles = [
  ...['tokenizer.json', configFile, 'special_tokens_map.json', 'added_tokens.json', templateFile],
  ...['vocab.json', 'merges.txt', 'vocab.txt', 'tokenizer.model', 'spiece.model', 'sentencepiece.bpe.model'],
  // Of the images of a model that has some, without which its processor would not load again.
  ...['preprocessor_config.json', 'processor_config.json'],
]

/** Whether Transformers reads a tokenizer, or its templates, from an entry of this name. */
export function isTokenizerFile(name: string): boolean {
  return plainFiles.includes(name) || name === templateFolder
}

/**
 * Copies a tokenizer and sets the chat template.
 *
 * @param source folder with `tokenizer.json`
 * @param target folder to write into
 * @param chatTemplate Jinja text that training rendered with; undefined keeps the source's own, if any. Where it differs
 *   from the source's, it replaces it, and templates for other purposes are left behind
 * @throws ERR_TOKENIZER_NOT_FOUND, ERR_INVALID_TOKENIZER
 */
export async function copyTokenizer(
  source: string,
  target: string,
  chatTemplate: string | undefined,
): Promise<Warning[]> {
  if (!(await isFile(join(source, 'tokenizer.json')))) {
    throw new TunesmithError('ERR_TOKENIZER_NOT_FOUND', `${source} has no tokenizer.json to go with the checkpoint.`)
  }
  const config = await readTokenizerConfig(source)
  const replaced =
    chatTemplate !== undefined && chatTemplate !== (await ownTemplate(source, config?.value.chat_template))
  for (const name of plainFiles) {
    if (replaced && (name === templateFile || name === configFile)) continue
    if (await isFile(join(source, name))) await copy(join(source, name), join(target, name))
  }
  const others = await namedTemplates(source)
  if (!replaced) {
    if (others.length > 0) await mkdir(join(target, templateFolder))
    for (const name of others) await copy(join(source, templateFolder, name), join(target, templateFolder, name))
    return []
  }
  await writeFile(join(target, templateFile), chatTemplate, { flush: true })
  if (config) {
    config.raw.delete('chat_template')
    await writeFile(join(target, configFile), config.raw.toString(), { flush: true })
  }
  const own = config?.value.chat_template
  const inConfig = typeof own === 'object' && own !== null ? Object.keys(own).length : 0
  if (others.length === 0 && inConfig < 2) return []
  const message =
    `${source} has chat templates for several purposes; the checkpoint gets only the one that training used, ` +
    'because the others would render other text than it was trained on.'
  return [{ code: 'WARN_CHAT_TEMPLATES_DROPPED', message }]
}

/**
 * The id of the tokenizer's pad token, where it has one.
 *
 * @throws ERR_INVALID_TOKENIZER
 */
export async function padTokenId(source: string): Promise<number | undefined> {
  const pad = (await readTokenizerConfig(source))?.value.pad_token
  const content = isObject(pad) ? pad.content : pad
  if (typeof content !== 'string') return undefined
  const path = join(source, 'tokenizer.json')
  const { value } = RawObject.parse(await readFile(path, 'utf8'), path, 'ERR_INVALID_TOKENIZER')
  const added = Array.isArray(value.added_tokens) ? value.added_tokens : []
  const token: unknown = added.find((entry) => isObject(entry) && entry.content === content)
  return isObject(token) && typeof token.id === 'number' ? token.id : undefined
}

async function readTokenizerConfig(
  source: string,
): Promise<{ raw: RawObject; value: Record<string, unknown> } | undefined> {
  const path = join(source, configFile)
  if (!(await isFile(path))) return undefined
  return RawObject.parse(await readFile(path, 'utf8'), path, 'ERR_INVALID_TOKENIZER')
}

/** The default template as Transformers finds it: the file wins over the config, and of several the one named default. */
async function ownTemplate(source: string, inConfig: unknown): Promise<string | undefined> {
  const path = join(source, templateFile)
  if (await isFile(path)) return readFile(path, 'utf8')
  if (typeof inConfig === 'string') return inConfig
  if (isObject(inConfig)) return typeof inConfig.default === 'string' ? inConfig.default : undefined
  if (!Array.isArray(inConfig)) return undefined
  const entry: unknown = inConfig.find((item) => isObject(item) && item.name === 'default')
  return isObject(entry) && typeof entry.template === 'string' ? entry.template : undefined
}

async function namedTemplates(source: string): Promise<string[]> {
  const entries = await readdir(join(source, templateFolder)).catch(() => [])
  return entries.filter((name) => name.endsWith('.jinja'))
}

/** Contents only: a read-only source must not make a read-only checkpoint. */
async function copy(from: string, to: string): Promise<void> {
  await writeFile(to, await readFile(from), { flush: true })
}
