/** Llama (arXiv 2302.13971, 2307.09288, 2407.21783) and the many models published in its format. */

import type { DecoderSpec } from '../../native/addon.ts'
import { inverseFrequencies } from '../rope.ts'
import type { ConfigReader } from './config.ts'
import type { FamilyReading, ModelFamily, ParameterSource } from './family.ts'
import { readRope } from './rope-config.ts'

export const llama: ModelFamily = {
  name: 'llama',
  architecture: 'LlamaForCausalLM',
  headTensor: 'lm_head.weight',
  embeddingTensor: 'model.embed_tokens.weight',
  derivedTensors: /\.rotary_emb\.inv_freq$/,
  read,
  parameters,
}

function read(reader: ConfigReader): FamilyReading {
  const hiddenSize = reader.positiveInteger('hidden_size')
  const heads = reader.positiveInteger('num_attention_heads')
  // Transformers insists on it even where head_dim is given, so a checkpoint without it would not load again.
  if (hiddenSize % heads !== 0) {
    throw reader.invalid('hidden_size', hiddenSize, `a multiple of num_attention_heads (${heads})`)
  }
  const kvHeads = reader.positiveInteger('num_key_value_heads', heads)
  if (heads % kvHeads !== 0) {
    throw reader.invalid('num_attention_heads', heads, `a multiple of num_key_value_heads (${kvHeads})`)
  }
  const headDim = reader.positiveInteger('head_dim', hiddenSize / heads)
  if (headDim % 2 !== 0) throw reader.invalid('head_dim', headDim, 'even: rotary embedding turns pairs')
  const activation = reader.value('hidden_act') ?? 'silu'
  if (activation !== 'silu' && activation !== 'swish') {
    throw reader.unsupported('hidden_act', activation, 'Supported: silu.')
  }
  const maxPositions = reader.positiveInteger('max_position_embeddings', 2048)
  const rope = readRope(reader, maxPositions)
  const attentionBias = reader.boolean('attention_bias', false)
  const layers = reader.positiveInteger('num_hidden_layers')
  const spec: DecoderSpec = {
    vocabSize: reader.positiveInteger('vocab_size'),
    hiddenSize,
    layers,
    heads,
    kvHeads,
    headDim,
    intermediateSize: reader.positiveInteger('intermediate_size'),
    maxPositions,
    norm: 'rms',
    normEpsilon: reader.positiveNumber('rms_norm_eps', 1e-6),
    normUnitOffset: false,
    normBias: false,
    blockNorms: 'pre',
    parallelResidual: false,
    qkNorm: 'none',
    attentionBias,
    attentionOutputBias: attentionBias,
    attentionScale: headDim ** -0.5,
    attentionSoftcap: 0,
    layerWindows: new Int32Array(layers),
    ropes: [{ inverseFrequencies: inverseFrequencies(headDim, rope.theta, rope.scaling), scale: 1 }],
    layerRopes: new Int32Array(layers),
    rotaryDim: headDim,
    longRopeThreshold: 0,
    mlp: 'gated',
    activation: 'silu',
    mlpBias: reader.boolean('mlp_bias', false),
    tiedEmbeddings: reader.boolean('tie_word_embeddings', false),
    headBias: false,
    embeddingScale: 1,
    learnedPositions: 0,
    residualScale: 1,
    logitScale: 1,
    logitSoftcap: 0,
  }
  return { spec, unused: rope.unused }
}

/** In the order of the forward pass. */
function parameters(spec: DecoderSpec): ParameterSource[] {
  const { vocabSize, hiddenSize, intermediateSize } = spec
  const q = spec.heads * spec.headDim
  const kv = spec.kvHeads * spec.headDim
  const list: ParameterSource[] = []
  const add = (name: string, tensor: string, shape: number[]): void => {
    list.push({ name, tensor, shape })
  }
  const linear = (name: string, tensor: string, rows: number, columns: number, bias: boolean): void => {
    add(`${name}.weight`, `${tensor}.weight`, [rows, columns])
    if (bias) add(`${name}.bias`, `${tensor}.bias`, [rows])
  }
  add('embedding.weight', 'model.embed_tokens.weight', [vocabSize, hiddenSize])
  for (let layer = 0; layer < spec.layers; layer++) {
    const to = `layers.${layer}`
    const from = `model.layers.${layer}`
    add(`${to}.attention_norm.weight`, `${from}.input_layernorm.weight`, [hiddenSize])
    linear(`${to}.attention.q`, `${from}.self_attn.q_proj`, q, hiddenSize, spec.attentionBias)
    linear(`${to}.attention.k`, `${from}.self_attn.k_proj`, kv, hiddenSize, spec.attentionBias)
    linear(`${to}.attention.v`, `${from}.self_attn.v_proj`, kv, hiddenSize, spec.attentionBias)
    linear(`${to}.attention.o`, `${from}.self_attn.o_proj`, hiddenSize, q, spec.attentionOutputBias)
    add(`${to}.mlp_norm.weight`, `${from}.post_attention_layernorm.weight`, [hiddenSize])
    linear(`${to}.mlp.gate`, `${from}.mlp.gate_proj`, intermediateSize, hiddenSize, spec.mlpBias)
    linear(`${to}.mlp.up`, `${from}.mlp.up_proj`, intermediateSize, hiddenSize, spec.mlpBias)
    linear(`${to}.mlp.down`, `${from}.mlp.down_proj`, hiddenSize, intermediateSize, spec.mlpBias)
  }
  add('final_norm.weight', 'model.norm.weight', [hiddenSize])
  if (!spec.tiedEmbeddings) add('head.weight', 'lm_head.weight', [vocabSize, hiddenSize])
  return list
}
