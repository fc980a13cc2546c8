/**
 * A model folder as one GGUF file for llama.cpp and what is built on it: weights, vocabulary, chat template and the ids
 * that end a turn. It appears whole or not at all, and is read back before it does. One tensor at a time is in memory,
 * in float32.
 */
import { readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { chooseTemplate } from '../../chat/template.ts'
import { Tokenizer } from '../../chat/tokenizer.ts'
import { TunesmithError, type Warning } from '../../errors.ts'
import { makeFolder } from '../../make-folder.ts'
import { notWritable, refuseExisting, stagingPath } from '../../output-file.ts'
import { RawObject } from '../json.ts'
import { type Checkpoint, checkVocabulary, openCheckpoint } from '../open.ts'
import { planArchitecture, type TensorPlan } from './architectures.ts'
import { encode, encodedBytes, type GgufType, ggufTypes, typeInfo } from './encode.ts'
import { modelfile } from './modelfile.ts'
import { readGgufHeader } from './read.ts'
import { interleaveHeads, readParameters } from './tensors.ts'
import { bool, type Metadata, type MetadataValue, string, uint32 } from './values.ts'
import { vocabularyOf } from './vocabulary.ts'
import { type GgufTensor, writeGguf } from './write.ts'

export interface GgufOptions {
  /** Folder of the model. */
  model: string
  /** The file to write. It must not exist unless `overwrite` is set. */
  file: string
  /** Type of the matrices ['f16']; vectors stay float32, as llama.cpp wants them. */
  type?: GgufType
  /** Replace an existing file [false]. */
  overwrite?: boolean
  /** Write Ollama's Modelfile beside it, named like the file with the ending `.Modelfile` [true]. */
  modelfile?: boolean
  signal?: AbortSignal
  /** Called with the bytes written so far and in all. */
  onProgress?: (done: number, total: number) => void
}

export interface GgufResult {
  /** Absolute. */
  file: string
  bytes: number
  /** Absolute; undefined where none was asked for. */
  modelfile: string | undefined
  warnings: Warning[]
}

/** llama.cpp's numbers for what most of a file is. */
const fileTypes: Record<GgufType, number> = { f32: 0, f16: 1, q8_0: 7, bf16: 32 }
/** Elements that are converted at once. */
const pieceElements = 1 << 20

/**
 * @throws ERR_GGUF_UNSUPPORTED, ERR_GGUF_TOKENIZER, ERR_GGUF_RANGE, ERR_OUTPUT_EXISTS, ERR_OUTPUT_NOT_WRITABLE; the errors
 *   of openCheckpoint and Tokenizer.load
 */
export async function exportGguf(options: GgufOptions): Promise<GgufResult> {
  const { type = 'f16', overwrite = false, modelfile: wantsModelfile = true, signal, onProgress } = options
  if (!ggufTypes.includes(type)) {
    throw new TunesmithError(
      'ERR_INVALID_OPTION',
      `type must be ${ggufTypes.join(', ')}; found ${JSON.stringify(type)}`,
    )
  }
  const file = resolve(options.file)
  if (await stat(join(options.model, 'adapter_config.json')).catch(() => undefined)) {
    throw new TunesmithError(
      'ERR_GGUF_UNSUPPORTED',
      `${options.model} is an adapter, not a model: merge it into its base first (tunesmith export --merge).`,
    )
  }
  const checkpoint = await openCheckpoint(options.model)
  const tokenizer = await Tokenizer.load(checkpoint.folder)
  checkVocabulary(checkpoint.spec, tokenizer.vocabSize)
  const { metadata, plans, warnings } = await planFile(checkpoint, tokenizer, type)
  await refuseExisting(file, overwrite)
  const ollama = wantsModelfile ? await ollamaFile(file, tokenizer, warnings) : undefined
  if (ollama) await refuseExisting(ollama.path, overwrite)
  const temporary = stagingPath(file)
  try {
    await makeFolder(dirname(file))
    await rm(temporary, { force: true })
    const tensors = plans.map((plan) => tensorOf(plan, checkpoint, typeOf(plan, type, warnings), signal))
    await writeGguf(temporary, metadata, tensors, onProgress)
    await checkWritten(temporary, tensors)
    await refuseExisting(file, overwrite)
    if (ollama) await writeFile(ollama.path, ollama.text)
    await rename(temporary, file)
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => {})
    signal?.throwIfAborted()
    throw asOutputError(error, file)
  }
  const { size } = await stat(file)
  return {
    file,
    bytes: size,
    modelfile: ollama?.path,
    warnings: [...checkpoint.warnings, ...warnings.map((message) => ({ code: 'WARN_GGUF', message }))],
  }
}

async function ollamaFile(
  file: string,
  tokenizer: Tokenizer,
  warnings: string[],
): Promise<{ path: string; text: string }> {
  const { template } = await chooseTemplate('model', tokenizer)
  const { text, warnings: found } = modelfile(basename(file), template, tokenizer)
  warnings.push(...found)
  return { path: `${file.replace(/\.gguf$/, '')}.Modelfile`, text }
}

async function planFile(
  checkpoint: Checkpoint,
  tokenizer: Tokenizer,
  type: GgufType,
): Promise<{ metadata: Metadata; plans: TensorPlan[]; warnings: string[] }> {
  const { family, spec, config, folder } = checkpoint
  const architecture = planArchitecture(family.name, spec, config.value, basename(folder))
  const path = join(folder, 'tokenizer.json')
  const { value } = RawObject.parse(await readFile(path, 'utf8'), path, 'ERR_INVALID_TOKENIZER')
  const vocabulary = vocabularyOf(value, spec.vocabSize, path)
  const warnings = [...architecture.warnings, ...vocabulary.warnings]
  const metadata = new Map<string, MetadataValue>([
    ...architecture.metadata,
    ['general.file_type', uint32(fileTypes[type])],
    ...vocabulary.metadata,
    ...specialTokens(checkpoint, tokenizer, warnings),
  ])
  const template = tokenizer.chatTemplates.get('default')
  if (template !== undefined) metadata.set('tokenizer.chat_template', string(template))
  return { metadata, plans: architecture.tensors, warnings }
}

/** llama.cpp ends generation at eos, eot and eom: the stop ids of the checkpoint in their order. */
function specialTokens(
  { generationConfig, config }: Checkpoint,
  tokenizer: Tokenizer,
  warnings: string[],
): [string, MetadataValue][] {
  const result: [string, MetadataValue][] = []
  const { bos, unk, pad } = tokenizer
  if (bos) result.push(['tokenizer.ggml.bos_token_id', uint32(bos.id)])
  if (unk) result.push(['tokenizer.ggml.unknown_token_id', uint32(unk.id)])
  if (pad) result.push(['tokenizer.ggml.padding_token_id', uint32(pad.id)])
  const eos = [generationConfig?.value.eos_token_id ?? config.value.eos_token_id].flat()
  const stops = eos.filter((id): id is number => typeof id === 'number' && id >= 0)
  if (stops.length === 0 && tokenizer.eos) stops.push(tokenizer.eos.id)
  const places = ['eos', 'eot', 'eom']
  stops.slice(0, places.length).forEach((id, index) => {
    result.push([`tokenizer.ggml.${places[index]}_token_id`, uint32(id)])
  })
  if (stops.length > places.length) {
    const rest = stops.slice(places.length).map((id) => JSON.stringify(tokenizer.token(id) ?? id))
    warnings.push(`GGUF holds ${places.length} stop tokens; ${rest.join(', ')} will not end generation there`)
  }
  result.push(['tokenizer.ggml.add_bos_token', bool(tokenizer.addsBos)])
  result.push(['tokenizer.ggml.add_eos_token', bool(false)])
  return result
}

/** Vectors, and matrices that llama.cpp adds to activations, stay float32; rows of odd length cannot be blocks. */
function typeOf({ name, shape }: TensorPlan, type: GgufType, warnings: string[]): GgufType {
  if (shape.length < 2 || name === 'position_embd.weight') return 'f32'
  const { block } = typeInfo[type]
  if (shape[1]! % block === 0) return type
  const note = `rows of ${shape[1]} elements are no whole blocks of ${block}; such matrices, like ${name}, are f16`
  if (!warnings.some((warning) => warning.startsWith(`rows of ${shape[1]} `))) warnings.push(note)
  return 'f16'
}

function tensorOf(
  plan: TensorPlan,
  checkpoint: Checkpoint,
  type: GgufType,
  signal: AbortSignal | undefined,
): GgufTensor {
  const { name, shape, interleavedHeads, add } = plan
  async function* read(): AsyncGenerator<Uint8Array> {
    let values = plan.values ?? (await readParameters(checkpoint, plan.parameters, signal))
    if (interleavedHeads !== undefined) values = interleaveHeads(values, shape[0]!, interleavedHeads)
    if (add !== undefined) values = values.map((value) => value + add)
    for (let first = 0; first < values.length; first += pieceElements) {
      signal?.throwIfAborted()
      yield encode(type, values.subarray(first, first + pieceElements), name)
    }
  }
  return { name, type, shape, read }
}

/** What was written must read back with every tensor in its place. */
async function checkWritten(path: string, tensors: readonly GgufTensor[]): Promise<void> {
  const { tensors: found } = await readGgufHeader(path)
  for (const { name, type, shape } of tensors) {
    const tensor = found.get(name)
    const elements = shape.reduce((product, size) => product * size, 1)
    if (tensor?.type !== type || tensor.bytes !== encodedBytes(type, elements)) {
      throw new TunesmithError('ERR_INVALID_GGUF', `${path}: tensor ${name} does not read back as it was written`)
    }
  }
}

function asOutputError(error: unknown, file: string): unknown {
  return error instanceof Error && 'syscall' in error ? notWritable(file, error) : error
}
