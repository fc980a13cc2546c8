/**
 * The rotary part of a config, in each of the forms it has had: `rope_theta` with an optional `rope_scaling` (whose
 * type was first called `type`), and since Transformers 5 one `rope_parameters` object. Precedence is Transformers'.
 */
import { TunesmithError } from '../../errors.ts'
import { describe, isObject, type JsonObject } from '../json.ts'
import type { RopeScaling } from '../rope.ts'
import type { ConfigReader } from './config.ts'

export interface RopeConfig {
  theta: number
  scaling: RopeScaling
  /** Fields of the object that its type does not use, as Transformers warns of too. */
  unused: string[]
}

const supported = ['default', 'linear', 'llama3']

/** Fields each type reads. Those of other types are ignored by Transformers; anything else is not understood. */
const fieldsOf: Record<string, readonly string[]> = {
  default: [],
  linear: ['factor'],
  llama3: ['factor', 'low_freq_factor', 'high_freq_factor', 'original_max_position_embeddings'],
}
const common = ['rope_type', 'type', 'rope_theta', 'partial_rotary_factor']
const ofOtherTypes = ['attention_factor', 'beta_fast', 'beta_slow', 'short_factor', 'long_factor', ...fieldsOf.llama3!]

/**
 * @param reader the config; `rope_theta`, `rope_scaling`, `rope_parameters` and `original_max_position_embeddings` are read
 * @param maxPositions llama3's original context where the config names none
 * @throws ERR_UNSUPPORTED_ROPE for other types and for fields that are not understood; ERR_INVALID_CONFIG
 */
export function readRope(reader: ConfigReader, maxPositions: number): RopeConfig {
  const scaling = reader.value('rope_scaling')
  const parameters = reader.value('rope_parameters')
  const [name, rope] = scaling === undefined ? ['rope_parameters', parameters ?? {}] : ['rope_scaling', scaling]
  if (!isObject(rope)) throw reader.invalid(name, rope, 'an object')
  const topTheta = reader.positiveNumber('rope_theta', 10_000)
  const topContext = reader.value('original_max_position_embeddings')
  const type = rope.rope_type ?? rope.type ?? 'default'
  if (typeof type !== 'string' || !supported.includes(type)) {
    throw unsupported(reader, `${name} has the type ${describe(type)}`)
  }
  for (const [field, value] of Object.entries(rope)) {
    if (isObject(value)) throw unsupported(reader, `${name}.${field} is an object: rotary parameters per kind of layer`)
    if (!common.includes(field) && !ofOtherTypes.includes(field))
      throw unsupported(reader, `${name} has the field ${field}`)
  }
  const partial = rope.partial_rotary_factor ?? 1
  if (partial !== 1) throw unsupported(reader, `${name}.partial_rotary_factor is ${describe(partial)}`)
  const used = [...common, ...fieldsOf[type]!]
  return {
    theta: number(reader, rope, name, 'rope_theta', topTheta),
    scaling: readScaling(reader, rope, name, type, topContext ?? maxPositions, topContext !== undefined),
    unused: Object.keys(rope)
      .filter((field) => !used.includes(field))
      .map((field) => `${name}.${field}`),
  }
}

function readScaling(
  reader: ConfigReader,
  rope: JsonObject,
  name: string,
  type: string,
  context: unknown,
  contextWins: boolean,
): RopeScaling {
  if (type === 'default') return { type }
  const factor = number(reader, rope, name, 'factor')
  if (type === 'linear') return { type, factor }
  const lowFrequencyFactor = number(reader, rope, name, 'low_freq_factor')
  const highFrequencyFactor = number(reader, rope, name, 'high_freq_factor')
  if (highFrequencyFactor <= lowFrequencyFactor) {
    throw reader.invalid(
      `${name}.high_freq_factor`,
      highFrequencyFactor,
      `over low_freq_factor (${lowFrequencyFactor})`,
    )
  }
  // Where the config itself has the field, Transformers prefers it to the one inside the object.
  const source = contextWins ? {} : rope
  const originalMaxPositions = number(reader, source, name, 'original_max_position_embeddings', context)
  return { type: 'llama3', factor, lowFrequencyFactor, highFrequencyFactor, originalMaxPositions }
}

function number(reader: ConfigReader, rope: JsonObject, name: string, field: string, fallback?: unknown): number {
  const value = rope[field] ?? fallback
  if (typeof value === 'number' && Number.isFinite(value) && value > 0) return value
  throw reader.invalid(`${name}.${field}`, value, 'a number over 0')
}

function unsupported(reader: ConfigReader, what: string): TunesmithError {
  return new TunesmithError(
    'ERR_UNSUPPORTED_ROPE',
    `${reader.where}: ${what}, which is not supported. Supported rope types: ${supported.join(', ')}.`,
  )
}
