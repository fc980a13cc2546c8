/** OLMo 2 (arXiv 2501.00656): norms after the blocks instead of before, and of q and k over their whole width. */
import type { ConfigReader } from './config.ts'
import type { FamilyReading, ModelFamily } from './family.ts'
import { llama } from './llama.ts'
import { readActivation, readSizes, readWithRope } from './spec.ts'

export const olmo2: ModelFamily = { ...llama, name: 'olmo2', architecture: 'Olmo2ForCausalLM', read }

function read(reader: ConfigReader): FamilyReading {
  const sizes = readSizes(reader, { maxPositions: 2048 })
  const attentionBias = reader.boolean('attention_bias', false)
  return readWithRope(reader, sizes, {
    normEpsilon: reader.positiveNumber('rms_norm_eps', 1e-5),
    activation: readActivation(reader, 'hidden_act', 'silu'),
    blockNorms: 'post',
    qkNorm: 'full',
    attentionBias,
    attentionOutputBias: attentionBias,
    tiedEmbeddings: reader.boolean('tie_word_embeddings', false),
  })
}
