/** The supported model families, and the way from a config.json to one of them. Another family is another entry. */
import { TunesmithError } from '../../errors.ts'
import type { DecoderSpec } from '../../native/addon.ts'
import { describe, type JsonObject } from '../json.ts'
import { ConfigReader } from './config.ts'
import type { ModelFamily } from './family.ts'
import { llama } from './llama.ts'

const families: readonly ModelFamily[] = [llama]

export interface ConfigReading {
  family: ModelFamily
  spec: DecoderSpec
  /** Fields that were not understood and were left aside, by path. */
  unknown: string[]
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
  return { family, spec, unknown: [...reader.finish(), ...unused] }
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
    : `model_type ${describe(modelType)}`
  const list = families.map((family) => `${family.architecture} (model_type "${family.name}")`).join(', ')
  throw new TunesmithError('ERR_UNSUPPORTED_ARCHITECTURE', `${where}: ${name} is not supported. Supported: ${list}.`)
}
