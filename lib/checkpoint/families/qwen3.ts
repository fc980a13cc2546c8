/** Qwen3 (arXiv 2505.09388): Qwen2 with norms of q and k over each head instead of biases. */
import type { ConfigReader } from './config.ts'
import type { FamilyReading, ModelFamily } from './family.ts'
import { llama } from './llama.ts'
import { readQwenWindows } from './qwen2.ts'
import { readActivation, readSizes, readWithRope } from './spec.ts'

export const qwen3: ModelFamily = { ...llama, name: 'qwen3', architecture: 'Qwen3ForCausalLM', read }

function read(reader: ConfigReader): FamilyReading {
  const sizes = readSizes(reader, { kvHeads: 32, headDim: 128, maxPositions: 32768 })
  const attentionBias = reader.boolean('attention_bias', false)
  return readWithRope(reader, sizes, {
    normEpsilon: reader.positiveNumber('rms_norm_eps', 1e-6),
    activation: readActivation(reader, 'hidden_act', 'silu'),
    qkNorm: 'head',
    attentionBias,
    attentionOutputBias: attentionBias,
    layerWindows: readQwenWindows(reader, sizes),
    tiedEmbeddings: reader.boolean('tie_word_embeddings', false),
  })
}
