/** StableLM 2 and 3B (arXiv 2402.17834): Llama with LayerNorm, and a quarter of each head turned. */
import type { ConfigReader } from './config.ts'
import type { FamilyReading, ModelFamily } from './family.ts'
import { llama } from './llama.ts'
import { checkHeadDim, readActivation, readSizes, readWithRope } from './spec.ts'

export const stablelm: ModelFamily = { ...llama, name: 'stablelm', architecture: 'StableLmForCausalLM', read }

/** `use_parallel_residual` and `qk_layernorm` (12B: one norm for both blocks, one per head) are refused by name. */
function read(reader: ConfigReader): FamilyReading {
  const sizes = readSizes(reader, { kvHeads: 32, maxPositions: 4096 })
  checkHeadDim(reader, sizes)
  const differences = {
    norm: 'layer' as const,
    normEpsilon: reader.positiveNumber('layer_norm_eps', 1e-5),
    normBias: true,
    activation: readActivation(reader, 'hidden_act', 'silu'),
    attentionBias: reader.boolean('use_qkv_bias', false),
    tiedEmbeddings: reader.boolean('tie_word_embeddings', false),
  }
  return readWithRope(reader, sizes, differences, { partial: reader.positiveNumber('partial_rotary_factor', 0.25) })
}
