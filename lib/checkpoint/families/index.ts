/** The supported model families, and the way from a config.json to one of them. Another family is another entry. */
import { TunesmithError } from '../../errors.ts'
import type { DecoderSpec } from '../../native/addon.ts'
import { describe, type JsonObject } from '../json.ts'
import { ConfigReader } from './config.ts'
import type { ModelFamily } from './family.ts'
import { gemma2 } from './gemma2.ts'
import { gemma3 } from './gemma3.ts'
import { gemma3Images } from './gemma3-images.ts'
import { gptNeox } from './gpt-neox.ts'
import { gpt2 } from './gpt2.ts'
import { granite } from './granite.ts'
import { llama } from './llama.ts'
import { mistral } from './mistral.ts'
import { olmo2 } from './olmo2.ts'
import { phi3 } from './phi3.ts'
import { qwen2 } from './qwen2.ts'
import { qwen3 } from './qwen3.ts'
import { smollm3 } from './smollm3.ts'
import { stablelm } from './stablelm.ts'

const families: readonly ModelFamily[] = [
  ...[llama, mistral, qwen2, qwen3, gemma2, gemma3, gemma3Images, phi3],
  ...[olmo2, smollm3, gpt2, gptNeox, stablelm, granite],
]

export interface ConfigReading {
  family: ModelFamily
  spec: DecoderSpec
  /** Fields that were not understood and were left aside, by path. */
  unknown: string[]
  /** Fields of dropout that are not 0: they act in training only, where options say what drops. */
  dropout: string[]
}

/**
 * Reads a config whole.
 *
 * @param config the parsed config.json
 * @param where names it in errors
 * @throws ERR_UNSUPPORTED_ARCHITECTURE, ERR_UNSUPPORTED_CONFIG, ERR_UNSUPPORTED_ROPE, ERR_INVALID_CONFIG
 */
export function readConfig(config: JsonObject, where: string): ConfigReading {
  const family = familyOf(config, where)
  const reader = new ConfigReader(config, where)
  const { spec, unused } = family.read(reader)
  const unknown = [...reader.finish(), ...unused]
  return { family, spec, unknown, dropout: reader.dropout }
}

/**
 * The family a config belongs to, by `architectures` and `model_type`; either may be absent, both must agree.
 *
 * @throws ERR_UNSUPPORTED_ARCHITECTURE
 */
export function familyOf(config: JsonObject, where: string): ModelFamily {
  const { architectures, model_type: modelType } = config
  const named = Array.isArray(architectures) && architectures.length > 0
  const found = families.find(
    (family) =>
      (named ? architectures.includes(family.architecture) : modelType !== undefined) &&
      (modelType === undefined || modelType === family.name),
  )
  if (found) return found
  const name = named
    ? `architecture ${describe(architectures[0])} (model_type ${describe(modelType)})`
    : modelType === undefined
      ? 'a config with neither "architectures" nor "model_type"'
      : `model_type ${describe(modelType)}`
  const list = families.map((family) => `${family.architecture} (model_type "${family.name}")`).join(', ')
  throw new TunesmithError('ERR_UNSUPPORTED_ARCHITECTURE', `${where}: ${name} is not supported. Supported: ${list}.`)
}
