/** The fields of each rotary type, with Transformers' defaults. */
import type { JsonObject } from '../json.ts'
import type { RopeScaling } from '../rope.ts'
import type { ConfigReader } from './config.ts'

const original = 'original_max_position_embeddings'

/** Fields each type reads. Those of other types are ignored by Transformers; anything else is not understood. */
export const ropeFields: Record<RopeScaling['type'], readonly string[]> = {
  default: [],
  linear: ['factor'],
  dynamic: ['factor'],
  yarn: ['factor', 'attention_factor', 'beta_fast', 'beta_slow', 'mscale', 'mscale_all_dim', 'truncate', original],
  longrope: ['short_factor', 'long_factor', 'factor', 'attention_factor', original],
  llama3: ['factor', 'low_freq_factor', 'high_freq_factor', original],
}

export interface ScalingContext {
  reader: ConfigReader
  rope: JsonObject
  /** Of the object, in errors. */
  name: string
  rotaryDim: number
  maxPositions: number
  /** Original context outside the object; wins over the one inside. */
  originalContext: unknown
}

/** @throws ERR_INVALID_CONFIG */
export function readScaling(type: RopeScaling['type'], context: ScalingContext): RopeScaling {
  const { reader, rope, name, rotaryDim, maxPositions } = context
  const number = (field: string, fallback?: unknown): number =>
    reader.positive(`${name}.${field}`, rope[field] ?? fallback)
  const optional = (field: string): number | undefined => (rope[field] == null ? undefined : number(field))
  const originalMaxPositions = (): number =>
    reader.positive(`${name}.${original}`, context.originalContext ?? rope[original] ?? maxPositions)
  switch (type) {
    case 'default':
      return { type }
    case 'linear':
      return { type, factor: number('factor') }
    case 'dynamic':
      if (rotaryDim < 4) throw reader.invalid(`${name}.rope_type`, type, 'another for heads that turn 2 dimensions')
      return { type, factor: number('factor'), maxPositions }
    case 'yarn': {
      const truncate = rope.truncate ?? true
      if (typeof truncate !== 'boolean') throw reader.invalid(`${name}.truncate`, truncate, 'true or false')
      const factor = number('factor')
      return {
        type,
        factor,
        attentionFactor: optional('attention_factor') ?? yarnAttention(factor, rope.mscale, rope.mscale_all_dim),
        betaFast: number('beta_fast', 32),
        betaSlow: number('beta_slow', 1),
        truncate,
        originalMaxPositions: originalMaxPositions(),
      }
    }
    case 'longrope': {
      const positions = originalMaxPositions()
      const factor = optional('factor') ?? maxPositions / positions
      const attention = factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(positions))
      return {
        type,
        shortFactors: factors(context, 'short_factor'),
        longFactors: factors(context, 'long_factor'),
        attentionFactor: optional('attention_factor') ?? attention,
        originalMaxPositions: positions,
      }
    }
    case 'llama3': {
      const low = number('low_freq_factor')
      const high = number('high_freq_factor')
      if (high <= low) throw reader.invalid(`${name}.high_freq_factor`, high, `over low_freq_factor (${low})`)
      return {
        type,
        factor: number('factor'),
        lowFrequencyFactor: low,
        highFrequencyFactor: high,
        originalMaxPositions: originalMaxPositions(),
      }
    }
  }
}

/** Section 3.4 of arXiv 2309.00071; the ratio of two such scales is DeepSeek's. */
function yarnAttention(factor: number, mscale: unknown, mscaleAllDim: unknown): number {
  const scale = (by: number): number => (factor <= 1 ? 1 : 0.1 * by * Math.log(factor) + 1)
  if (typeof mscale === 'number' && typeof mscaleAllDim === 'number' && mscale !== 0 && mscaleAllDim !== 0) {
    return scale(mscale) / scale(mscaleAllDim)
  }
  return scale(1)
}

function factors({ reader, rope, name, rotaryDim }: ScalingContext, field: string): number[] {
  const value = rope[field]
  if (Array.isArray(value) && value.length === rotaryDim / 2) {
    return value.map((factor, index) => reader.positive(`${name}.${field}[${index}]`, factor))
  }
  throw reader.invalid(`${name}.${field}`, value, `a list of ${rotaryDim / 2} numbers`)
}
