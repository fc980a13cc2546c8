/** Granite 3 (IBM): Llama with four multipliers, after μP (arXiv 2203.03466). */
import type { ConfigReader } from './config.ts'
import type { FamilyReading, ModelFamily } from './family.ts'
import { llama } from './llama.ts'

export const granite: ModelFamily = { ...llama, name: 'granite', architecture: 'GraniteForCausalLM', read }

function read(reader: ConfigReader): FamilyReading {
  const { spec, unused } = llama.read(reader)
  return {
    spec: {
      ...spec,
      // The scale of the scores itself, not a factor of headDim^-½.
      attentionScale: reader.positiveNumber('attention_multiplier', 1),
      embeddingScale: reader.positiveNumber('embedding_multiplier', 1),
      residualScale: reader.positiveNumber('residual_multiplier', 1),
      logitScale: 1 / reader.positiveNumber('logits_scaling', 1),
    },
    unused,
  }
}
