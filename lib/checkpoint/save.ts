/**
 * Saving a checkpoint as the Hugging Face folder that Transformers loads: config.json as it came, field by field, with
 * the dtype and the ids that end a turn brought up to date; weights under the names of their family; the tokenizer and
 * the chat template that training used. It appears whole or not at all (see publish.ts).
 */
import { writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { TunesmithError, type Warning } from '../errors.ts'
import type { NativeEngine, StorageType } from '../native/addon.ts'
import { RawObject } from './json.ts'
import { type ModelDescription, openCheckpoint } from './open.ts'
import { refuseSource } from './output.ts'
import { publish } from './publish.ts'
import { defaultChunkBytes, readRange, type StoredTensor } from './safetensors.ts'
import { elementsOf, sizeOf, storageTypeOf } from './safetensors-header.ts'
import { type TensorSource, writeTensors } from './safetensors-writer.ts'
import { groupByTensor, tensorReader } from './tensor-parts.ts'
import { copyTokenizer, padTokenId } from './tokenizer-files.ts'

export interface SaveOptions {
  /** Where the checkpoint goes; made if it does not exist. */
  folder: string
  /** What the engine holds: the opened checkpoint, or the description of a model made from a config. */
  model: ModelDescription
  engine: Pick<NativeEngine, 'read'>
  /** Type of the weights [the source's]. */
  dtype?: StorageType | undefined
  tokenizerFolder: string
  /** Jinja text that training rendered with; undefined keeps what the tokenizer has. */
  chatTemplate?: string | undefined
  /** Ids that end an assistant turn in that template; generation stops at them. */
  stopTokenIds: readonly number[]
  /** Bytes per weights file [5 GB]. */
  maxShardBytes?: number
  signal?: AbortSignal | undefined
  /** Called after every chunk with the bytes of weights written so far and in all. */
  onProgress?: ((done: number, total: number) => void) | undefined
}

export interface SaveResult {
  /** Absolute. */
  folder: string
  warnings: Warning[]
}

/**
 * Writes the checkpoint and reads its headers back before it is put in place. An earlier checkpoint in `folder` is
 * replaced, other files there are left alone.
 *
 * @throws ERR_OUTPUT_IS_SOURCE, ERR_OUTPUT_NOT_WRITABLE, ERR_TOKENIZER_NOT_FOUND, ERR_INVALID_TOKENIZER; the signal's reason
 */
export async function saveCheckpoint(options: SaveOptions): Promise<SaveResult> {
  const { model, tokenizerFolder } = options
  const folder = resolve(options.folder)
  await refuseSource(folder, model.folder)
  const ids = await tokenIds(options)
  const dtype = options.dtype ?? model.sourceDtype
  const warnings: Warning[] = []
  await publish(folder, async (staging) => {
    await writeTensors(staging, tensorSources(options, dtype), options)
    warnings.push(...(await copyTokenizer(tokenizerFolder, staging, options.chatTemplate)))
    await writeJson(join(staging, 'generation_config.json'), generationConfig(model, ids))
    // Last, so that a staging folder with it is complete.
    await writeJson(join(staging, 'config.json'), updatedConfig(model, dtype, ids))
    await openCheckpoint(staging)
  })
  return { folder, warnings }
}

/** Bytes of weights that a checkpoint of this model takes on disk. */
export function checkpointBytes(
  { family, spec, carried }: Pick<ModelDescription, 'family' | 'spec' | 'carried'>,
  dtype: StorageType,
): number {
  const trained = family.parameters(spec).reduce((sum, { shape }) => sum + elementsOf(shape) * sizeOf(dtype), 0)
  return carried.reduce((sum, { begin, end }) => sum + end - begin, trained)
}

function tensorSources({ model, engine }: SaveOptions, type: StorageType): TensorSource[] {
  const trained = groupByTensor(model.family.parameters(model.spec)).map((group) => ({
    name: group.tensor,
    type,
    shape: group.shape,
    ...tensorReader(group, type, (...part) => engine.read(...part), defaultChunkBytes),
  }))
  return [...trained, ...model.carried.map(carriedSource)]
}

function carriedSource(tensor: StoredTensor): TensorSource {
  const { name, shape, file, dtype } = tensor
  const type = storageTypeOf(dtype)
  if (type === undefined) {
    throw new TunesmithError(
      'ERR_TENSOR_DTYPE',
      `${file}: tensor ${name} is ${dtype}; only floating point is saved again.`,
    )
  }
  return { name, type, shape, read: (offset, count) => readRange(tensor, offset * sizeOf(type), count * sizeOf(type)) }
}

interface TokenIds {
  /** One id, several, or none at all. */
  eos: number | number[] | undefined
  bos: number | undefined
  pad: number | undefined
}

/**
 * Generation must stop at the template's stop ids, and may stop where the base model did. A pad id among them would end
 * every padded row of a batch, so it is left out unless the template itself stops there.
 */
async function tokenIds({ model, stopTokenIds, tokenizerFolder }: SaveOptions): Promise<TokenIds> {
  const { vocabSize } = model.spec
  const outside = stopTokenIds.find((id) => !Number.isSafeInteger(id) || id < 0 || id >= vocabSize)
  if (outside !== undefined) {
    throw new TunesmithError(
      'ERR_INVALID_TOKENIZER',
      `stop token ${outside} is no id of the model's ${vocabSize} tokens.`,
    )
  }
  const config = model.config.value
  const generation = model.generationConfig?.value ?? {}
  const first = (name: string): number | undefined => idsOf(generation[name] ?? config[name])[0]
  const pad = first('pad_token_id') ?? (await padTokenId(tokenizerFolder))
  const original = [...idsOf(generation.eos_token_id), ...idsOf(config.eos_token_id)]
  const eos = [...new Set([...stopTokenIds, ...original.filter((id) => id !== pad)])]
  return { eos: eos.length > 1 ? eos : eos[0], bos: first('bos_token_id'), pad }
}

/** Old configs say -1 for none. */
function idsOf(value: unknown): number[] {
  return [value].flat().filter((id): id is number => typeof id === 'number' && id >= 0)
}

function updatedConfig({ config, family, spec }: ModelDescription, dtype: StorageType, { eos }: TokenIds): RawObject {
  const result = config.raw.clone()
  if (result.has('vocab_size')) result.set('vocab_size', spec.vocabSize)
  if (!result.has('architectures')) result.set('architectures', [family.architecture])
  if (!result.has('model_type')) result.set('model_type', family.name)
  // Transformers 5 writes `dtype`, earlier versions read only `torch_dtype`: each that is there is kept true.
  if (result.has('dtype')) result.set('dtype', dtype)
  if (result.has('torch_dtype') || !result.has('dtype')) result.set('torch_dtype', dtype)
  if (eos !== undefined) result.set('eos_token_id', eos)
  return result
}

function generationConfig({ generationConfig }: ModelDescription, { eos, bos, pad }: TokenIds): RawObject {
  const result = generationConfig?.raw.clone() ?? RawObject.empty()
  if (bos !== undefined) result.set('bos_token_id', bos)
  if (eos !== undefined) result.set('eos_token_id', eos)
  if (pad !== undefined) result.set('pad_token_id', pad)
  return result
}

async function writeJson(path: string, value: RawObject): Promise<void> {
  await writeFile(path, value.toString(), { flush: true })
}
