/** adapter_config.json as PEFT writes and reads it. */
import { TunesmithError } from '../../errors.ts'
import { describe, type JsonObject, RawObject } from '../json.ts'
import type { AdapterSettings } from './settings.ts'

export const adapterConfigFile = 'adapter_config.json'
export const adapterWeightsFile = 'adapter_model.safetensors'

/** The checkpoint an adapter belongs to. */
export interface BaseName {
  /** A folder, or the id of a model on the hub. */
  name: string
  /** Of the hub; undefined: main. */
  revision: string | undefined
}

export interface PeftConfig {
  settings: AdapterSettings
  base: BaseName
  /** Each field with its own text, for writing it again. */
  raw: RawObject
  /** Fields that are not known. */
  unknown: string[]
}

/** Fields that change what the adapter computes, or which tensors it has, and the values that do not. */
const inert: Record<string, readonly unknown[]> = {
  bias: ['none'],
  lora_bias: [false],
  modules_to_save: [],
  layer_replication: [],
  target_parameters: [],
  trainable_token_indices: [],
  alora_invocation_tokens: [],
  arrow_config: [],
  use_bdlora: [false],
  use_qalora: [false],
  velora_config: [],
  monteclora_config: [],
  kasa_config: [],
}

/** How A and B began: of no matter afterwards, except for ways that change the base as well. */
const changesBase = /^(pissa|corda|olora|loftq|lora_ga)/

const harmless = new Set([
  ...['auto_mapping', 'corda_config', 'ensure_weight_tying', 'eva_config', 'exclude_modules', 'fan_in_fan_out'],
  ...['inference_mode', 'layers_pattern', 'layers_to_transform', 'loftq_config', 'lora_ga_config', 'megatron_config'],
  ...['megatron_core', 'peft_version', 'qalora_group_size', 'runtime_config', 'task_type', 'target_modules'],
])

/**
 * @param where names the file in errors
 * @throws ERR_ADAPTER_CONFIG for what is no LoRA, or has parts that are not supported
 */
export function readPeftConfig(text: string, where: string): PeftConfig {
  const { raw, value } = RawObject.parse(text, where, 'ERR_ADAPTER_CONFIG')
  const refuse = (what: string) => new TunesmithError('ERR_ADAPTER_CONFIG', `${where}: ${what}`)
  if (value.peft_type !== 'LORA') throw refuse(`peft_type is ${describe(value.peft_type)}; LORA is supported`)
  for (const [field, neutral] of Object.entries(inert)) {
    const found = value[field] ?? null
    if (found === null || neutral.includes(found) || (Array.isArray(found) && found.length === 0)) continue
    throw refuse(`${field} = ${describe(found)} is not supported`)
  }
  const init = value.init_lora_weights
  if (typeof init === 'string' && changesBase.test(init)) {
    throw refuse(
      `init_lora_weights is ${describe(init)}, whose adapter belongs to a changed base. Save it with ` +
        "path_initial_model_for_weight_conversion in PEFT's save_pretrained, which makes it an adapter of the base itself",
    )
  }
  const base = value.base_model_name_or_path
  if (typeof base !== 'string' || base === '') throw refuse('base_model_name_or_path names no model')
  const revision = value.revision ?? undefined
  if (revision !== undefined && typeof revision !== 'string') throw refuse('revision is no text')
  const known = new Set([...Object.keys(inert), ...harmless, ...ownFields])
  return {
    settings: readSettings(value, refuse),
    base: { name: base, revision },
    raw,
    unknown: Object.keys(value).filter((field) => !known.has(field) && value[field] !== null),
  }
}

const ownFields = [
  ...['peft_type', 'base_model_name_or_path', 'revision', 'init_lora_weights', 'r', 'lora_alpha', 'lora_dropout'],
  ...['rank_pattern', 'alpha_pattern', 'use_rslora', 'use_dora'],
]

function readSettings(value: JsonObject, refuse: (what: string) => TunesmithError): AdapterSettings {
  const number = (field: string, fits: (n: number) => boolean, fallback?: number): number => {
    const found = value[field] ?? fallback
    if (typeof found === 'number' && Number.isFinite(found) && fits(found)) return found
    throw refuse(`${field} is ${describe(found)}`)
  }
  const pattern = (field: string): Record<string, number> => {
    const found = value[field] ?? {}
    const fits =
      typeof found === 'object' && Object.values(found as object).every((n) => typeof n === 'number' && n > 0)
    if (!fits) throw refuse(`${field} is ${describe(found)}`)
    return found as Record<string, number>
  }
  return {
    rank: number('r', (n) => Number.isSafeInteger(n) && n > 0),
    alpha: number('lora_alpha', (n) => n > 0, 8),
    dropout: number('lora_dropout', (n) => n >= 0 && n < 1, 0),
    // Which modules have an adapter is told by the tensors.
    targets: [],
    rankPattern: pattern('rank_pattern'),
    alphaPattern: pattern('alpha_pattern'),
    rslora: value.use_rslora === true,
    dora: value.use_dora === true,
  }
}

/**
 * What PEFT needs to load the adapter again. Fields that are at PEFT's defaults and new in it are left out, so that
 * earlier versions read the file too.
 *
 * @param targets names of the adapted modules
 */
export function writePeftConfig(
  settings: AdapterSettings,
  base: BaseName,
  targets: string | readonly string[],
  fanInFanOut: boolean,
): RawObject {
  const fields: Record<string, unknown> = {
    alpha_pattern: settings.alphaPattern,
    auto_mapping: null,
    base_model_name_or_path: base.name,
    bias: 'none',
    fan_in_fan_out: fanInFanOut,
    inference_mode: true,
    init_lora_weights: true,
    layers_pattern: null,
    layers_to_transform: null,
    lora_alpha: settings.alpha,
    lora_dropout: settings.dropout,
    modules_to_save: null,
    peft_type: 'LORA',
    r: settings.rank,
    rank_pattern: settings.rankPattern,
    revision: base.revision ?? null,
    target_modules: targets,
    task_type: 'CAUSAL_LM',
    use_dora: settings.dora,
    use_rslora: settings.rslora,
  }
  const config = RawObject.empty()
  for (const [name, value] of Object.entries(fields)) config.set(name, value)
  return config
}
