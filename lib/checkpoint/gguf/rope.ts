/**
 * Rotary embeddings in GGUF: the base of the series and the kind of scaling as metadata, or the factor of each frequency
 * as a tensor (Llama 3.1's and Phi-3's), which llama.cpp reads for some architectures.
 */
import type { TunesmithError } from '../../errors.ts'
import type { DecoderSpec } from '../../native/addon.ts'
import { isObject, type JsonObject } from '../json.ts'
import type { TensorPlan } from './architectures.ts'
import { float32, type MetadataValue, string, uint32 } from './values.ts'

interface RopeConfig {
  type: string
  theta: number
  /** Of the layers with a window, where they have their own. */
  localTheta?: number
  fields: JsonObject
}

/** Architectures for which llama.cpp reads a factor for each frequency. */
const withFactors = ['llama']
const withYarn = ['llama', 'qwen2', 'qwen3']

/**
 * Metadata by key without the architecture's name.
 *
 * @param refuse makes the error
 */
export function ropeMetadata(
  architecture: string,
  spec: DecoderSpec,
  config: JsonObject,
  refuse: (what: string) => TunesmithError,
): [string, MetadataValue][] {
  if (spec.ropes.length === 0) return []
  const { type, theta, localTheta, fields } = ropeConfig(spec, config)
  const metadata: [string, MetadataValue][] = [
    ['rope.dimension_count', uint32(spec.rotaryDim)],
    ['rope.freq_base', float32(theta)],
  ]
  if (localTheta !== undefined) metadata.push(['rope.freq_base_swa', float32(localTheta)])
  const number = (key: string) => (typeof fields[key] === 'number' ? (fields[key] as number) : undefined)
  const scaling = (name: string) => {
    metadata.push(['rope.scaling.type', string(name)])
    const factor = number('factor')
    if (factor !== undefined) metadata.push(['rope.scaling.factor', float32(factor)])
  }
  if (type === 'linear' && localTheta === undefined) scaling('linear')
  else if (type === 'yarn' && withYarn.includes(architecture)) {
    scaling('yarn')
    const factor = number('factor') ?? 1
    metadata.push([
      'rope.scaling.original_context_length',
      uint32(number('original_max_position_embeddings') ?? spec.maxPositions),
    ])
    metadata.push(['rope.scaling.yarn_beta_fast', float32(number('beta_fast') ?? 32)])
    metadata.push(['rope.scaling.yarn_beta_slow', float32(number('beta_slow') ?? 1)])
    // llama.cpp multiplies what it is told by the usual factor.
    metadata.push(['rope.scaling.yarn_attn_factor', float32(spec.ropes[0]!.scale / (0.1 * Math.log(factor) + 1))])
  } else if (type === 'llama3' && withFactors.includes(architecture)) return metadata
  else if (type === 'longrope' && architecture === 'phi3') {
    metadata.push(['rope.scaling.attn_factor', float32(spec.ropes[0]!.scale)])
    metadata.push(['rope.scaling.original_context_length', uint32(spec.longRopeThreshold || spec.maxPositions)])
  } else if (type === 'dynamic') {
    // Within the trained context, which is the exported one, it changes nothing.
  } else if (type !== 'default') throw refuse(`llama.cpp's ${architecture} has no rotary embedding of type ${type}`)
  return metadata
}

/** Factors by which llama.cpp divides each frequency. */
export function ropeTensors(architecture: string, spec: DecoderSpec, config: JsonObject): TensorPlan[] {
  if (spec.ropes.length === 0) return []
  const { type, theta } = ropeConfig(spec, config)
  const plan = (name: string, table: number): TensorPlan => {
    const { inverseFrequencies } = spec.ropes[table]!
    const values = Float32Array.from(
      inverseFrequencies,
      (frequency, index) => theta ** ((-2 * index) / spec.rotaryDim) / frequency,
    )
    return { name, parameters: [], shape: [values.length], values }
  }
  if (type === 'llama3') return [plan('rope_freqs.weight', 0)]
  if (type === 'longrope' && architecture === 'phi3') {
    return [plan('rope_factors_long.weight', spec.ropes.length > 1 ? 1 : 0), plan('rope_factors_short.weight', 0)]
  }
  return []
}

/** From the top level of older configs, `rope_parameters` of newer ones, by kind of layer where there are several. */
function ropeConfig(spec: DecoderSpec, config: JsonObject): RopeConfig {
  const given = isObject(config.rope_parameters) ? config.rope_parameters : config.rope_scaling
  const nested = isObject(given) ? given : {}
  const fields = isObject(nested.full_attention) ? nested.full_attention : nested
  const local = isObject(nested.sliding_attention) ? nested.sliding_attention.rope_theta : config.rope_local_base_freq
  const type = fields.rope_type ?? fields.type ?? 'default'
  const theta =
    fields.rope_theta ??
    config.rope_theta ??
    config.rotary_emb_base ??
    (type === 'default' || type === 'dynamic' ? thetaOf(spec) : 10_000)
  return {
    type: String(type),
    theta: Number(theta),
    ...(typeof local === 'number' && { localTheta: local }),
    fields,
  }
}

/** The base of the series where the config leaves it to the family: from the slowest of its unscaled frequencies. */
function thetaOf({ ropes, rotaryDim }: DecoderSpec): number {
  const slowest = ropes[0]!.inverseFrequencies.at(-1)!
  return rotaryDim > 2 ? Math.round(slowest ** (-rotaryDim / (rotaryDim - 2))) : 10_000
}
