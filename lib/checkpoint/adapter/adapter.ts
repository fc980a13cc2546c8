/** An adapter of one model: which modules it has, where its weights come from, and what they are called in PEFT. */
import type { AdapterOptions } from '../../native/addon.ts'
import type { RawObject } from '../json.ts'
import type { StoredTensor } from '../safetensors.ts'
import { type AdaptedModule, engineModules } from './modules.ts'
import type { BaseName } from './peft-config.ts'
import type { AdapterSettings } from './settings.ts'

export interface Adapter {
  settings: AdapterSettings
  modules: AdaptedModule[]
  base: BaseName
  /** The folder it was loaded from; undefined for one that begins. */
  stored: StoredAdapter | undefined
}

export interface StoredAdapter {
  /** Absolute. */
  folder: string
  /** adapter_config.json as it came. */
  config: RawObject
  /** By PEFT's names. */
  tensors: Map<string, StoredTensor>
}

export function engineAdapters({ settings, modules }: Adapter): AdapterOptions {
  return { modules: engineModules(modules), dora: settings.dora, dropout: settings.dropout }
}

/** One tensor of an adapter, here and in PEFT's file. */
export interface AdapterTensor {
  /** Native parameter. */
  name: string
  tensor: string
  shape: number[]
  /** Which row of the file's tensor each native row is; undefined where they are in the same order. */
  rows: Int32Array | undefined
}

export function adapterTensors({ settings, modules }: Pick<Adapter, 'settings' | 'modules'>): AdapterTensor[] {
  return modules.flatMap(({ name, native, rank, inputs, outputs, rows }) => {
    const prefix = `base_model.model.${name}`
    const tensors: AdapterTensor[] = [
      { name: `${native}.lora_a`, tensor: `${prefix}.lora_A.weight`, shape: [rank, inputs], rows: undefined },
      { name: `${native}.lora_b`, tensor: `${prefix}.lora_B.weight`, shape: [outputs, rank], rows },
    ]
    if (settings.dora) {
      const tensor = `${prefix}.lora_magnitude_vector`
      tensors.push({ name: `${native}.lora_magnitude`, tensor, shape: [outputs], rows })
    }
    return tensors
  })
}
