/** GPT-NeoX and Pythia (arXiv 2204.06745, 2304.01373): both blocks read the same residual; q, k and v alternate by head. */
import type { DecoderSpec } from '../../native/addon.ts'
import type { ConfigReader } from './config.ts'
import type { FamilyReading, ModelFamily, ParameterSource } from './family.ts'
import { interleaved, listParameters, llamaNames, type TensorNames } from './parameters.ts'
import { checkHeadDim, readActivation, readSizes, readWithRope } from './spec.ts'

export const gptNeox: ModelFamily = {
  name: 'gpt_neox',
  architecture: 'GPTNeoXForCausalLM',
  headTensor: 'embed_out.weight',
  embeddingTensor: 'gpt_neox.embed_in.weight',
  basePrefix: 'gpt_neox.',
  derivedTensors: /\.(rotary_emb\.inv_freq|attention\.(masked_)?bias)$/,
  read,
  parameters,
}

function read(reader: ConfigReader): FamilyReading {
  const sizes = readSizes(reader, { maxPositions: 2048 })
  checkHeadDim(reader, sizes)
  if (sizes.kvHeads !== sizes.heads) {
    throw reader.unsupported('num_key_value_heads', sizes.kvHeads, 'GPT-NeoX has as many as num_attention_heads.')
  }
  const attentionBias = reader.boolean('attention_bias', true)
  const differences = {
    norm: 'layer' as const,
    normEpsilon: reader.positiveNumber('layer_norm_eps', 1e-5),
    normBias: true,
    parallelResidual: reader.boolean('use_parallel_residual', true),
    mlp: 'plain' as const,
    activation: readActivation(reader, 'hidden_act', 'gelu'),
    attentionBias,
    attentionOutputBias: attentionBias,
    mlpBias: true,
    tiedEmbeddings: reader.boolean('tie_word_embeddings', false),
  }
  return readWithRope(reader, sizes, differences, {
    partial: reader.positiveNumber('rotary_pct', 0.25),
    thetaField: 'rotary_emb_base',
  })
}

function parameters(spec: DecoderSpec): ParameterSource[] {
  const [q, k, v] = interleaved('attention.query_key_value', spec.heads, spec.headDim, 3)
  const names: TensorNames = {
    ...llamaNames,
    embedding: 'gpt_neox.embed_in',
    layer: (index) => `gpt_neox.layers.${index}`,
    q: q!,
    k: k!,
    v: v!,
    o: 'attention.dense',
    up: 'mlp.dense_h_to_4h',
    down: 'mlp.dense_4h_to_h',
    finalNorm: 'gpt_neox.final_layer_norm',
    head: 'embed_out',
  }
  return listParameters(spec, names)
}
