/** Llama (arXiv 2302.13971, 2307.09288, 2407.21783) and the many models published in its format: TinyLlama, SmolLM, … */
import type { ConfigReader } from './config.ts'
import type { FamilyReading, ModelFamily } from './family.ts'
import { listParameters, llamaNames } from './parameters.ts'
import { readActivation, readSizes, readWithRope } from './spec.ts'

export const llama: ModelFamily = {
  name: 'llama',
  architecture: 'LlamaForCausalLM',
  headTensor: 'lm_head.weight',
  embeddingTensor: 'model.embed_tokens.weight',
  basePrefix: 'model.',
  derivedTensors: /\.rotary_emb\.inv_freq$/,
  read,
  parameters: (spec) => listParameters(spec, llamaNames),
}

function read(reader: ConfigReader): FamilyReading {
  const sizes = readSizes(reader, { maxPositions: 2048 })
  const attentionBias = reader.boolean('attention_bias', false)
  return readWithRope(reader, sizes, {
    normEpsilon: reader.positiveNumber('rms_norm_eps', 1e-6),
    activation: readActivation(reader, 'hidden_act', 'silu'),
    attentionBias,
    attentionOutputBias: attentionBias,
    mlpBias: reader.boolean('mlp_bias', false),
    tiedEmbeddings: reader.boolean('tie_word_embeddings', false),
  })
}
