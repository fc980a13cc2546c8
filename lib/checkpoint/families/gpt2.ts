/** GPT-2 (Radford et al., 2019): LayerNorm, learned positions, biases everywhere, matrices stored as [K, N]. */
import type { DecoderSpec } from '../../native/addon.ts'
import type { ConfigReader } from './config.ts'
import type { FamilyReading, ModelFamily, ParameterSource } from './family.ts'
import { listParameters, llamaNames, stacked, type TensorNames } from './parameters.ts'
import { llamaSpec, readActivation } from './spec.ts'

export const gpt2: ModelFamily = {
  name: 'gpt2',
  architecture: 'GPT2LMHeadModel',
  headTensor: 'lm_head.weight',
  embeddingTensor: 'transformer.wte.weight',
  basePrefix: 'transformer.',
  derivedTensors: /\.attn\.(masked_)?bias$/,
  read,
  parameters,
}

function read(reader: ConfigReader): FamilyReading {
  const hiddenSize = reader.positiveInteger('n_embd')
  const heads = reader.positiveInteger('n_head')
  if (hiddenSize % heads !== 0) throw reader.invalid('n_embd', hiddenSize, `a multiple of n_head (${heads})`)
  const headDim = hiddenSize / heads
  const maxPositions = reader.positiveInteger('n_positions', 1024)
  // An older name of the same; and a switch of precision that leaves the mathematics alone.
  for (const field of ['n_ctx', 'reorder_and_upcast_attn']) reader.value(field)
  if (reader.boolean('scale_attn_by_inverse_layer_idx', false)) {
    throw reader.unsupported('scale_attn_by_inverse_layer_idx', true)
  }
  const sizes = {
    vocabSize: reader.positiveInteger('vocab_size'),
    hiddenSize,
    layers: reader.positiveInteger('n_layer'),
    heads,
    kvHeads: heads,
    headDim,
    intermediateSize: reader.positiveInteger('n_inner', 4 * hiddenSize),
    maxPositions,
  }
  const noRope = { tables: [], rotaryDim: 0, longRopeThreshold: 0, unused: [] }
  const spec = llamaSpec(sizes, noRope, {
    norm: 'layer',
    normEpsilon: reader.positiveNumber('layer_norm_epsilon', 1e-5),
    normBias: true,
    attentionBias: true,
    attentionOutputBias: true,
    attentionScale: reader.boolean('scale_attn_weights', true) ? headDim ** -0.5 : 1,
    layerRopes: new Int32Array(sizes.layers).fill(-1),
    mlp: 'plain',
    activation: readActivation(reader, 'activation_function', 'gelu_new'),
    mlpBias: true,
    tiedEmbeddings: reader.boolean('tie_word_embeddings', true),
    learnedPositions: maxPositions,
  })
  return { spec, unused: [] }
}

function parameters(spec: DecoderSpec): ParameterSource[] {
  const { hiddenSize } = spec
  const [q, k, v] = stacked('attn.c_attn', [hiddenSize, hiddenSize, hiddenSize], true)
  const column = (tensor: string, rows: number) => stacked(tensor, [rows], true)[0]!
  const names: TensorNames = {
    ...llamaNames,
    embedding: 'transformer.wte',
    positions: 'transformer.wpe',
    layer: (index) => `transformer.h.${index}`,
    attentionNorm: 'ln_1',
    mlpNorm: 'ln_2',
    q: q!,
    k: k!,
    v: v!,
    o: column('attn.c_proj', hiddenSize),
    up: column('mlp.c_fc', spec.intermediateSize),
    down: column('mlp.c_proj', hiddenSize),
    finalNorm: 'transformer.ln_f',
  }
  return listParameters(spec, names)
}
