/** What most families read from their configs in the same way. */
import type { DecoderSpec } from '../../native/addon.ts'
import type { ConfigReader } from './config.ts'
import type { FamilyReading } from './family.ts'
import { type RopeConfig, type RopeRules, readRope } from './rope-config.ts'

export type Sizes = Pick<
  DecoderSpec,
  'vocabSize' | 'hiddenSize' | 'layers' | 'heads' | 'kvHeads' | 'headDim' | 'intermediateSize' | 'maxPositions'
>

/** Transformers' defaults of a family, for the fields that its config class has defaults for and real configs leave out. */
export interface SizeDefaults {
  vocabSize?: number
  hiddenSize?: number
  layers?: number
  heads?: number
  /** Where the field is absent [`heads`]; where it is null it is `heads` everywhere. */
  kvHeads?: number
  headDim?: number
  intermediateSize?: number
  maxPositions: number
}

/** The sizes of a model in the field names that Llama introduced. */
export function readSizes(reader: ConfigReader, defaults: SizeDefaults): Sizes {
  const hiddenSize = reader.positiveInteger('hidden_size', defaults.hiddenSize)
  const heads = reader.positiveInteger('num_attention_heads', defaults.heads)
  // Several families' code insists on it even where head_dim is given, so a checkpoint without it would not load again.
  if (hiddenSize % heads !== 0) {
    throw reader.invalid('hidden_size', hiddenSize, `a multiple of num_attention_heads (${heads})`)
  }
  const kvHeads = reader.positiveIntegerOrNone('num_key_value_heads', defaults.kvHeads) ?? heads
  if (heads % kvHeads !== 0) {
    throw reader.invalid('num_attention_heads', heads, `a multiple of num_key_value_heads (${kvHeads})`)
  }
  const headDim = reader.positiveIntegerOrNone('head_dim', defaults.headDim) ?? hiddenSize / heads
  if (headDim % 2 !== 0) throw reader.invalid('head_dim', headDim, 'even: rotary embedding turns pairs')
  return {
    vocabSize: reader.positiveInteger('vocab_size', defaults.vocabSize),
    hiddenSize,
    layers: reader.positiveInteger('num_hidden_layers', defaults.layers),
    heads,
    kvHeads,
    headDim,
    intermediateSize: reader.positiveInteger('intermediate_size', defaults.intermediateSize),
    maxPositions: reader.positiveInteger('max_position_embeddings', defaults.maxPositions),
  }
}

/** For families whose code has no `head_dim`, and takes `hidden_size / num_attention_heads`. */
export function checkHeadDim(reader: ConfigReader, { hiddenSize, heads, headDim }: Sizes): void {
  if (headDim === hiddenSize / heads) return
  throw reader.unsupported('head_dim', headDim, `It must be hidden_size / num_attention_heads (${hiddenSize / heads}).`)
}

/** Llama's mathematics in these sizes; families say what differs. Every layer sees everything and has the first table. */
export function llamaSpec(sizes: Sizes, rope: RopeConfig, differences: Partial<DecoderSpec>): DecoderSpec {
  return {
    ...sizes,
    norm: 'rms',
    normEpsilon: 1e-6,
    normUnitOffset: false,
    normBias: false,
    blockNorms: 'pre',
    parallelResidual: false,
    qkNorm: 'none',
    attentionBias: false,
    attentionOutputBias: false,
    attentionScale: sizes.headDim ** -0.5,
    attentionSoftcap: 0,
    layerWindows: new Int32Array(sizes.layers),
    ropes: rope.tables,
    layerRopes: new Int32Array(sizes.layers),
    rotaryDim: rope.rotaryDim,
    longRopeThreshold: rope.longRopeThreshold,
    mlp: 'gated',
    activation: 'silu',
    mlpBias: false,
    tiedEmbeddings: false,
    headBias: false,
    embeddingScale: 1,
    learnedPositions: 0,
    residualScale: 1,
    logitScale: 1,
    logitSoftcap: 0,
    ...differences,
  }
}

/** As `llamaSpec`, for families with one `rope_parameters` for all layers. */
export function readWithRope(
  reader: ConfigReader,
  sizes: Sizes,
  differences: Partial<DecoderSpec>,
  rules: Partial<RopeRules> = {},
): FamilyReading {
  const rope = readRope(reader, { headDim: sizes.headDim, maxPositions: sizes.maxPositions, ...rules })
  return { spec: llamaSpec(sizes, rope, differences), unused: rope.unused }
}

const activations: Record<string, DecoderSpec['activation']> = {
  silu: 'silu',
  swish: 'silu',
  gelu: 'gelu',
  gelu_python: 'gelu',
  gelu_new: 'gelu_tanh',
  gelu_pytorch_tanh: 'gelu_tanh',
  // Its constant has ten digits of √(2/π): the same in float32.
  gelu_fast: 'gelu_tanh',
  relu: 'relu',
}

/** @throws ERR_UNSUPPORTED_CONFIG */
export function readActivation(reader: ConfigReader, field: string, fallback: string): DecoderSpec['activation'] {
  const value = reader.value(field) ?? fallback
  const found = typeof value === 'string' && Object.hasOwn(activations, value) ? activations[value] : undefined
  if (found) return found
  throw reader.unsupported(field, value, `Supported: ${Object.keys(activations).join(', ')}.`)
}

/**
 * The window of each layer from `layer_types`, or from what the family makes of older fields.
 *
 * @param window of the layers that slide; undefined where there is none
 * @param slides whether a layer slides where the config has no `layer_types`
 */
export function readLayerWindows(
  reader: ConfigReader,
  { layers, maxPositions }: Sizes,
  window: number | undefined,
  slides: (layer: number) => boolean,
): Int32Array {
  const types = readLayerTypes(reader, layers, slides)
  return Int32Array.from(types, (type) => {
    if (type === 'full_attention') return 0
    if (window === undefined)
      throw reader.invalid('sliding_window', reader.value('sliding_window'), 'set: layers slide')
    return windowOf(window, maxPositions)
  })
}

/** A window that the context never fills hides nothing; 0 says so, and costs nothing. */
export function windowOf(window: number, maxPositions: number): number {
  return window >= maxPositions ? 0 : window
}

export type LayerType = 'full_attention' | 'sliding_attention'

export function readLayerTypes(
  reader: ConfigReader,
  layers: number,
  slides: (layer: number) => boolean,
): readonly LayerType[] {
  const value = reader.value('layer_types')
  if (value === undefined) {
    return Array.from({ length: layers }, (_, layer) => (slides(layer) ? 'sliding_attention' : 'full_attention'))
  }
  if (!Array.isArray(value) || value.length < layers) {
    throw reader.invalid('layer_types', value, `a list of ${layers} types`)
  }
  return value.slice(0, layers).map((type, layer) => {
    if (type === 'full_attention' || type === 'sliding_attention') return type
    throw reader.unsupported(`layer_types[${layer}]`, type, `Supported: full_attention, sliding_attention.`)
  })
}
