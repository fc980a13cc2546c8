/**
 * Opening a model folder. Everything that can be wrong with it is found from its config and its tensors' headers, before
 * an engine exists and before any weight is read.
 */
import { readdir, readFile, stat } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { TunesmithError, type Warning } from '../errors.ts'
import type { DecoderSpec, StorageType } from '../native/addon.ts'
import { adapterConfigFile } from './adapter/peft-config.ts'
import type { ModelFamily } from './families/family.ts'
import { readConfig } from './families/index.ts'
import { describe, type JsonObject, RawObject } from './json.ts'
import { interruptedSave } from './publish.ts'
import { isFile, openTensors, type StoredTensor, type TensorStore } from './safetensors.ts'
import { storageTypeOf } from './safetensors-header.ts'
import { groupByTensor, type TensorGroup } from './tensor-parts.ts'

/** A JSON file of a model folder: parsed, and with each field's own text for writing it again. */
export interface JsonFile {
  value: JsonObject
  raw: RawObject
}

/** What a model is, with or without weights. */
export interface ModelDescription {
  /** Absolute folder of the weights; undefined for a model without any. */
  folder: string | undefined
  family: ModelFamily
  spec: DecoderSpec
  config: JsonFile
  generationConfig: JsonFile | undefined
  /** The dtype of (most of) the weights; of a config without weights what it says, else float32. */
  sourceDtype: StorageType
  /** Tensors that are not loaded, and saved again as they are. */
  carried: StoredTensor[]
  warnings: Warning[]
}

/** A folder whose weights have been found and checked, but not read. */
export interface Checkpoint extends ModelDescription {
  folder: string
  tensors: TensorStore
}

/**
 * Opens a Hugging Face folder: config.json, generation_config.json where present, and the headers of its safetensors.
 *
 * @throws ERR_MODEL_NOT_FOUND, ERR_CHECKPOINT_INCOMPLETE, the errors of readConfig and openTensors, and ERR_TENSOR_MISSING,
 *   ERR_TENSOR_SHAPE or ERR_TENSOR_DTYPE where the tensors do not fit the config
 */
export async function openCheckpoint(path: string): Promise<Checkpoint> {
  const folder = resolve(path)
  await checkFolder(folder, path)
  const description = await describeFolder(folder)
  const tensors = withBasePrefix(await openTensors(folder), description.family)
  const groups = groupByTensor(description.family.parameters(description.spec))
  checkTensors(tensors, groups, description.family, folder)
  const found = groups.map(({ tensor }) => tensors.tensors.get(tensor)!)
  const { sourceDtype, mixed } = commonDtype(found)
  const warnings = [
    ...description.warnings,
    ...tensors.warnings.map((message) => ({ code: 'WARN_INDEX', message })),
    ...mixed,
  ]
  warnings.push(...unusedTensors(tensors, groups, description, folder))
  const carried = [...tensors.tensors.values()].filter(({ name }) => description.family.carried?.test(name))
  return { ...description, folder, tensors, sourceDtype, carried, warnings }
}

/**
 * Describes a model that has no weights yet, for `model: { config, tokenizer, init: 'random' }`.
 *
 * @param config a config.json, a folder that has one, or the config itself
 * @throws ERR_MODEL_NOT_FOUND and the errors of readConfig
 */
export async function describeModel(config: string | JsonObject): Promise<ModelDescription> {
  const model = await describeAny(config)
  if (model.family.carried === undefined) return model
  throw new TunesmithError(
    'ERR_UNSUPPORTED_CONFIG',
    `a ${model.family.name} model has parts that are not trained here, so it cannot begin without weights; use the config of a text model.`,
  )
}

async function describeAny(config: string | JsonObject): Promise<ModelDescription> {
  if (typeof config !== 'string')
    return describeConfig(jsonFile(JSON.stringify(config), 'model.config'), 'model.config')
  const path = resolve(config)
  const entry = await stat(path).catch(() => undefined)
  if (entry === undefined) throw notFound(config)
  if (entry.isDirectory()) {
    await checkFolder(path, config)
    return describeFolder(path)
  }
  return describeConfig(await readJson(path), path, await readGenerationConfig(dirname(path)))
}

/**
 * A token id past the embedding's last row cannot be looked up.
 *
 * @param tokenizerSize the tokenizer's largest id, added tokens included, plus one
 * @throws ERR_VOCAB_TOO_SMALL
 */
export function checkVocabulary(spec: DecoderSpec, tokenizerSize: number): void {
  if (tokenizerSize <= spec.vocabSize) return
  throw new TunesmithError(
    'ERR_VOCAB_TOO_SMALL',
    `the tokenizer has ids up to ${tokenizerSize - 1}, but the model's embedding has ${spec.vocabSize} rows (vocab_size). ` +
      `Use the tokenizer that belongs to the model, or resize the model's embedding to at least ${tokenizerSize} rows first.`,
  )
}

/** Refuses what is no model folder, and what an interrupted save has left. */
async function checkFolder(folder: string, path: string): Promise<void> {
  const entries = await readdir(folder).catch(() => undefined)
  if (entries === undefined) throw notFound(path)
  if (entries.includes('config.json')) return
  const interrupted = interruptedSave(entries)
  if (interrupted) throw new TunesmithError('ERR_CHECKPOINT_INCOMPLETE', `${folder} has no config.json: ${interrupted}`)
  if (entries.includes(adapterConfigFile)) {
    throw new TunesmithError(
      'ERR_MODEL_NOT_FOUND',
      `${folder} is an adapter, and a whole model is needed here. Merge it with its base first: ` +
        'tunesmith export --merge ADAPTER --output DIR.',
    )
  }
  throw new TunesmithError(
    'ERR_MODEL_NOT_FOUND',
    `${folder} has no config.json, so it is no Hugging Face model folder.`,
  )
}

function notFound(path: string): TunesmithError {
  return new TunesmithError(
    'ERR_MODEL_NOT_FOUND',
    `model folder ${resolve(path)} does not exist or cannot be read. A model of the hub is named org/name.`,
  )
}

function jsonFile(text: string, where: string): JsonFile {
  return RawObject.parse(text, where, 'ERR_INVALID_CONFIG')
}

async function readJson(path: string): Promise<JsonFile> {
  return jsonFile(await readFile(path, 'utf8'), path)
}

async function readGenerationConfig(folder: string): Promise<JsonFile | undefined> {
  const path = join(folder, 'generation_config.json')
  return (await isFile(path)) ? readJson(path) : undefined
}

async function describeFolder(folder: string): Promise<ModelDescription> {
  const path = join(folder, 'config.json')
  return describeConfig(await readJson(path), path, await readGenerationConfig(folder))
}

function describeConfig(config: JsonFile, where: string, generationConfig?: JsonFile): ModelDescription {
  const { family, spec, unknown, dropout } = readConfig(config.value, where)
  const warnings: Warning[] = unknown.map((field) => ({
    code: 'WARN_UNKNOWN_CONFIG_FIELD',
    message: `${where}: the field ${field} is not known and was left aside. If it changes the forward pass, do not train with it.`,
  }))
  if (dropout.length > 0) {
    const message =
      `${where}: ${some(dropout)} above 0 is left aside: a run drops only what its options embeddingDropout and ` +
      'residualDropout say.'
    warnings.push({ code: 'WARN_NO_DROPOUT', message })
  }
  const dtype = config.value.dtype ?? config.value.torch_dtype
  const sourceDtype = storageTypes.find((type) => type === dtype) ?? 'float32'
  return { folder: undefined, family, spec, config, generationConfig, sourceDtype, carried: [], warnings }
}

const storageTypes: readonly StorageType[] = ['float64', 'float32', 'bfloat16', 'float16']

/** A file of the model without its head has bare names (that of GPT-2 on the hub); Transformers completes them too. */
function withBasePrefix(store: TensorStore, { basePrefix, headTensor }: ModelFamily): TensorStore {
  const names = [...store.tensors.keys()]
  if (names.some((name) => name.startsWith(basePrefix))) return store
  const full = (name: string): string => (name === headTensor ? name : basePrefix + name)
  return { ...store, tensors: new Map([...store.tensors].map(([name, tensor]) => [full(name), tensor])) }
}

/** Every parameter must be there with its shape and a type that can be read; all that is wrong is told at once. */
function checkTensors(store: TensorStore, groups: readonly TensorGroup[], family: ModelFamily, folder: string): void {
  const missing = groups.filter(({ tensor }) => !store.tensors.has(tensor)).map(({ tensor }) => tensor)
  if (missing.length > 0) {
    const hint = missing.includes(family.headTensor)
      ? ' If the head shares the embedding, set tie_word_embeddings to true.'
      : ''
    throw new TunesmithError(
      'ERR_TENSOR_MISSING',
      `${folder} lacks ${some(missing)} of the ${groups.length} tensors that its config.json calls for.${hint}`,
    )
  }
  for (const { tensor, shape } of groups) {
    const found = store.tensors.get(tensor)!
    const where = `${found.file}: tensor ${tensor}`
    if (found.shape.length !== shape.length || found.shape.some((size, axis) => size !== shape[axis])) {
      throw new TunesmithError(
        'ERR_TENSOR_SHAPE',
        `${where} has the shape ${describe(found.shape)}, but config.json calls for ${describe(shape)}. They do not belong together.`,
      )
    }
    if (storageTypeOf(found.dtype) === undefined) {
      throw new TunesmithError(
        'ERR_TENSOR_DTYPE',
        `${where} is ${found.dtype}; parameters must be F64, F32, F16 or BF16. Dequantise or convert the checkpoint first.`,
      )
    }
  }
}

/** The type that holds most elements: what the model is exported in again. */
function commonDtype(tensors: readonly StoredTensor[]): { sourceDtype: StorageType; mixed: Warning[] } {
  const elements = new Map<string, number>()
  for (const tensor of tensors) elements.set(tensor.dtype, (elements.get(tensor.dtype) ?? 0) + tensor.elements)
  const [dtype] = [...elements].sort((a, b) => b[1] - a[1])[0]!
  const others = tensors.filter((tensor) => tensor.dtype !== dtype)
  if (others.length === 0) return { sourceDtype: storageTypeOf(dtype)!, mixed: [] }
  const message =
    `${some(others.map(({ name, dtype }) => `${name} (${dtype})`))} differ from the other tensors (${dtype}); ` +
    `unless outputDtype says otherwise, the model is saved as ${dtype} throughout.`
  return { sourceDtype: storageTypeOf(dtype)!, mixed: [{ code: 'WARN_MIXED_DTYPES', message }] }
}

function unusedTensors(
  store: TensorStore,
  groups: readonly TensorGroup[],
  { family, spec }: ModelDescription,
  folder: string,
): Warning[] {
  const used = new Set(groups.map(({ tensor }) => tensor))
  const unused = [...store.tensors.keys()].filter(
    (name) =>
      !used.has(name) &&
      !family.derivedTensors.test(name) &&
      !family.carried?.test(name) &&
      !(spec.tiedEmbeddings && name === family.headTensor),
  )
  if (unused.length === 0) return []
  const message = `${folder} holds ${some(unused)}, which the config does not call for; left aside, and not saved again.`
  return [{ code: 'WARN_UNUSED_TENSORS', message }]
}

/** The first few of many names. */
export function some(names: readonly string[]): string {
  const shown = names.slice(0, 3).join(', ')
  return names.length > 3 ? `${shown} and ${names.length - 3} more` : shown
}
