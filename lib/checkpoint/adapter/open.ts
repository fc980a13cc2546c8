/** Opening an adapter folder: everything that can be wrong with it is found before an engine exists. */
import { readFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { TunesmithError, type Warning } from '../../errors.ts'
import { describe } from '../json.ts'
import { type ModelDescription, some } from '../open.ts'
import { isFile, readHeader, type StoredTensor } from '../safetensors.ts'
import { storageTypeOf } from '../safetensors-header.ts'
import { type Adapter, adapterTensors } from './adapter.ts'
import { modelModules, withRank } from './modules.ts'
import { adapterConfigFile, adapterWeightsFile, type PeftConfig, readPeftConfig } from './peft-config.ts'

/** Whether a folder holds an adapter and no model of its own. */
export async function isAdapterFolder(folder: string): Promise<boolean> {
  return (await isFile(join(folder, adapterConfigFile))) && !(await isFile(join(folder, 'config.json')))
}

/** @throws ERR_ADAPTER_CONFIG */
export async function openPeftConfig(folder: string): Promise<PeftConfig> {
  const path = join(resolve(folder), adapterConfigFile)
  return readPeftConfig(await readFile(path, 'utf8'), path)
}

/**
 * The adapter of a folder beside the model it belongs to. Its modules are those that have tensors; their ranks and alphas
 * are the configuration's.
 *
 * @throws ERR_WEIGHTS_NOT_FOUND, the errors of readHeader, ERR_TENSOR_MISSING, ERR_TENSOR_SHAPE, ERR_TENSOR_DTYPE, and
 *   ERR_ADAPTER_CONFIG for tensors of modules that the model does not have
 */
export async function openAdapter(
  folder: string,
  { settings, base, raw, unknown }: PeftConfig,
  model: Pick<ModelDescription, 'family' | 'spec'>,
): Promise<{ adapter: Adapter; warnings: Warning[] }> {
  const file = join(resolve(folder), adapterWeightsFile)
  if (!(await isFile(file))) {
    throw new TunesmithError('ERR_WEIGHTS_NOT_FOUND', `${resolve(folder)} has no ${adapterWeightsFile}`)
  }
  const header = await readHeader(file)
  const tensors = new Map<string, StoredTensor>()
  // PEFT once wrote magnitudes as weights of a module.
  for (const tensor of header.tensors) {
    const name = tensor.name.replace(/\.lora_magnitude_vector\.weight$/, '.lora_magnitude_vector')
    tensors.set(name, { ...tensor, name, file, position: header.dataStart + tensor.begin })
  }
  const modules = modelModules(model)
    .filter(({ name }) => tensors.has(`base_model.model.${name}.lora_A.weight`))
    .map((module) => withRank(module, settings))
  const adapter: Adapter = { settings, modules, base, stored: { folder: resolve(folder), config: raw, tensors } }
  checkTensors(adapter, tensors, file)
  const warnings = unknown.map((field) => ({
    code: 'WARN_UNKNOWN_CONFIG_FIELD',
    message: `${join(resolve(folder), adapterConfigFile)}: the field ${field} is not known and was left aside.`,
  }))
  return { adapter, warnings }
}

function checkTensors(adapter: Adapter, tensors: ReadonlyMap<string, StoredTensor>, file: string): void {
  const wanted = adapterTensors(adapter)
  const missing = wanted.filter(({ tensor }) => !tensors.has(tensor)).map(({ tensor }) => tensor)
  if (missing.length > 0) throw new TunesmithError('ERR_TENSOR_MISSING', `${file} lacks ${some(missing)}.`)
  const known = new Set(wanted.map(({ tensor }) => tensor))
  const others = [...tensors.keys()].filter((name) => !known.has(name))
  if (others.length > 0 || wanted.length === 0) {
    const what = wanted.length === 0 ? 'no adapter of a projection of this model' : some(others)
    throw new TunesmithError(
      'ERR_ADAPTER_CONFIG',
      `${file} holds ${what}; LoRA and DoRA of the layers' projections are supported. Does it belong to this base?`,
    )
  }
  for (const { tensor, shape } of wanted) {
    const found = tensors.get(tensor)!
    if (found.shape.length !== shape.length || found.shape.some((size, axis) => size !== shape[axis])) {
      throw new TunesmithError(
        'ERR_TENSOR_SHAPE',
        `${file}: tensor ${tensor} has the shape ${describe(found.shape)}, but ${adapterConfigFile} and the base call for ${describe(shape)}.`,
      )
    }
    if (storageTypeOf(found.dtype) === undefined) {
      throw new TunesmithError(
        'ERR_TENSOR_DTYPE',
        `${file}: tensor ${tensor} is ${found.dtype}; F64, F32, F16 or BF16 are read.`,
      )
    }
  }
}
