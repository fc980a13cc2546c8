/**
 * The rotary part of a config, in each of the forms it has had: `rope_theta` with an optional `rope_scaling` (whose
 * type was first called `type`), and since Transformers 5 one `rope_parameters` object. Precedence is Transformers'.
 */
import { TunesmithError } from '../../errors.ts'
import type { RopeTable } from '../../native/addon.ts'
import { describe, isObject, type JsonObject } from '../json.ts'
import { type RopeScaling, ropeTables } from '../rope.ts'
import type { ConfigReader } from './config.ts'
import { readScaling, ropeFields } from './rope-scaling.ts'

export interface RopeConfig {
  /** One, or for longrope two: short, then long. */
  tables: RopeTable[]
  /** Dimensions of each head that are turned. */
  rotaryDim: number
  /** Longer conversations take the second table; 0 where there is none. */
  longRopeThreshold: number
  /** Fields of the object that its type does not use, as Transformers warns of too. */
  unused: string[]
}

export interface RopeRules {
  headDim: number
  /** `max_position_embeddings`: the original context where the config names none. */
  maxPositions: number
  /** Where the config names none [10000]. */
  theta?: number
  /** What names the base outside the object [`rope_theta`]. */
  thetaField?: string
  /** Share of a head that is turned where the family's code can turn a part; without it every dimension is. */
  partial?: number
  /** Types that the family's code computes [all]. */
  types?: readonly RopeScaling['type'][]
  /** Phi-3 has an original context in its config class, which then always counts. */
  originalMaxPositions?: number
}

/**
 * @param reader the config; `rope_theta`, `rope_scaling`, `rope_parameters` and `original_max_position_embeddings` are read
 * @throws ERR_UNSUPPORTED_ROPE for other types and for fields that are not understood; ERR_INVALID_CONFIG
 */
export function readRope(reader: ConfigReader, rules: RopeRules): RopeConfig {
  const scaling = reader.value('rope_scaling')
  const parameters = reader.value('rope_parameters')
  const old = scaling !== undefined && !(isObject(scaling) && Object.keys(scaling).length === 0)
  const [name, rope] = old ? ['rope_scaling', scaling] : ['rope_parameters', parameters ?? {}]
  if (!isObject(rope)) throw reader.invalid(name, rope, 'an object')
  const theta = reader.positiveNumber(rules.thetaField ?? 'rope_theta', rules.theta ?? 10_000)
  const original = reader.value('original_max_position_embeddings') ?? rules.originalMaxPositions
  return readRopeObject(reader, rope, name, { ...rules, theta }, original)
}

/**
 * Reads one rotary object.
 *
 * @param name of the object in errors
 * @param originalContext outside the object: Transformers prefers it to the one inside
 */
export function readRopeObject(
  reader: ConfigReader,
  rope: JsonObject,
  name: string,
  rules: RopeRules,
  originalContext?: unknown,
): RopeConfig {
  const types = rules.types ?? (Object.keys(ropeFields) as RopeScaling['type'][])
  const refuse = (what: string): TunesmithError =>
    new TunesmithError(
      'ERR_UNSUPPORTED_ROPE',
      `${reader.where}: ${what}, which is not supported. Supported rope types: ${types.join(', ')}.`,
    )
  const named = rope.rope_type ?? rope.type ?? 'default'
  const type = types.find((known) => known === named)
  if (type === undefined) throw refuse(`${name} has the type ${describe(named)}`)
  for (const [field, value] of Object.entries(rope)) {
    if (isObject(value)) throw refuse(`${name}.${field} is an object: rotary parameters per kind of layer`)
    if (!common.includes(field) && !Object.values(ropeFields).some((fields) => fields.includes(field)))
      throw refuse(`${name} has the field ${field}`)
  }
  const share = rope.partial_rotary_factor ?? rules.partial ?? 1
  if (typeof share !== 'number' || (share !== 1 && rules.partial === undefined) || !(share > 0 && share <= 1)) {
    throw refuse(`${name}.partial_rotary_factor is ${describe(share)}`)
  }
  const rotaryDim = Math.trunc(rules.headDim * share)
  if (rotaryDim % 2 !== 0 || rotaryDim === 0) {
    throw refuse(`rotary embedding turns pairs, but of ${rules.headDim} dimensions of a head ${rotaryDim} are turned`)
  }
  const context = { reader, rope, name, rotaryDim, maxPositions: rules.maxPositions, originalContext }
  const scaling = readScaling(type, context)
  const theta = reader.positive(`${name}.rope_theta`, rope.rope_theta ?? rules.theta ?? 10_000)
  const used = [...common, ...ropeFields[type]]
  return {
    tables: ropeTables(rotaryDim, theta, scaling),
    rotaryDim,
    longRopeThreshold: scaling.type === 'longrope' ? scaling.originalMaxPositions : 0,
    unused: Object.keys(rope)
      .filter((field) => !used.includes(field))
      .map((field) => `${name}.${field}`),
  }
}

const common = ['rope_type', 'type', 'rope_theta', 'partial_rotary_factor']
