/** Gemma 3, text (arXiv 2503.19786): norms of q and k, five layers with a window to each without, a rope for each kind. */
import { isObject, type JsonObject } from '../json.ts'
import type { ConfigReader } from './config.ts'
import type { FamilyReading, ModelFamily } from './family.ts'
import { gemma2, readGemma } from './gemma2.ts'
import { type RopeConfig, readRopeObject } from './rope-config.ts'
import { llamaSpec, readLayerTypes, readSizes, type Sizes, windowOf } from './spec.ts'

export const gemma3: ModelFamily = { ...gemma2, name: 'gemma3_text', architecture: 'Gemma3ForCausalLM', read }

function read(reader: ConfigReader): FamilyReading {
  const sizes = readSizes(reader, {
    ...{ vocabSize: 262208, hiddenSize: 2304, layers: 26, heads: 8, kvHeads: 4, headDim: 256 },
    ...{ intermediateSize: 9216, maxPositions: 131072 },
  })
  const { differences, unused } = readGemma(reader, sizes)
  const window = reader.positiveInteger('sliding_window', 4096)
  const pattern = reader.positiveInteger('sliding_window_pattern', 6)
  const types = readLayerTypes(reader, sizes.layers, (layer) => (layer + 1) % pattern !== 0)
  const { local, global } = readRopes(reader, sizes)
  const spec = llamaSpec(sizes, global, {
    ...differences,
    qkNorm: 'head',
    logitSoftcap: reader.positiveNumberOrNone('final_logit_softcapping', undefined) ?? 0,
    layerWindows: Int32Array.from(types, (type) =>
      type === 'sliding_attention' ? windowOf(window, sizes.maxPositions) : 0,
    ),
    ropes: [...local.tables, ...global.tables],
    layerRopes: Int32Array.from(types, (type) => (type === 'sliding_attention' ? 0 : 1)),
  })
  return { spec, unused: [...unused, ...local.unused, ...global.unused] }
}

/** `rope_parameters` has one object for each kind of layer; before, `rope_scaling` was that of the full ones. */
function readRopes(reader: ConfigReader, sizes: Sizes): { local: RopeConfig; global: RopeConfig } {
  const parameters = reader.value('rope_parameters') ?? {}
  if (!isObject(parameters)) throw reader.invalid('rope_parameters', parameters, 'an object')
  const scaling = reader.value('rope_scaling') ?? {}
  if (!isObject(scaling)) throw reader.invalid('rope_scaling', scaling, 'an object')
  const stray = Object.keys(parameters).find((key) => key !== 'full_attention' && key !== 'sliding_attention')
  if (stray) throw reader.unsupported(`rope_parameters.${stray}`, parameters[stray], 'It takes an object per kind.')
  const ofKind = (kind: string): JsonObject => {
    const value = parameters[kind] ?? {}
    if (!isObject(value)) throw reader.invalid(`rope_parameters.${kind}`, value, 'an object')
    return value
  }
  const { headDim, maxPositions } = sizes
  const rules = { headDim, maxPositions, types: ['default', 'linear', 'llama3'] as const }
  const globalTheta = reader.positiveNumber('rope_theta', 1_000_000)
  const localTheta = reader.positiveNumber('rope_local_base_freq', 10_000)
  const full = { ...ofKind('full_attention'), ...scaling }
  return {
    global: readRopeObject(reader, full, 'rope_parameters.full_attention', { ...rules, theta: globalTheta }),
    local: readRopeObject(reader, ofKind('sliding_attention'), 'rope_parameters.sliding_attention', {
      ...rules,
      theta: localTheta,
    }),
  }
}
