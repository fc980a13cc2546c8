/** Mistral (arXiv 2310.06825): Llama with a sliding window in every layer. */
import type { ConfigReader } from './config.ts'
import type { FamilyReading, ModelFamily } from './family.ts'
import { llama } from './llama.ts'
import { readActivation, readLayerTypes, readSizes, readWithRope, windowOf } from './spec.ts'

export const mistral: ModelFamily = { ...llama, name: 'mistral', architecture: 'MistralForCausalLM', read }

function read(reader: ConfigReader): FamilyReading {
  const sizes = readSizes(reader, { kvHeads: 8, maxPositions: 4096 * 32 })
  const window = reader.positiveIntegerOrNone('sliding_window', 4096)
  const type = window === undefined ? 'full_attention' : 'sliding_attention'
  // Mistral's code treats all layers alike; a list that says otherwise belongs to Ministral.
  const types = readLayerTypes(reader, sizes.layers, () => type === 'sliding_attention')
  if (types.some((other) => other !== type)) {
    throw reader.unsupported('layer_types', types, `With sliding_window ${window ?? 'null'} Mistral has ${type} only.`)
  }
  return readWithRope(reader, sizes, {
    normEpsilon: reader.positiveNumber('rms_norm_eps', 1e-6),
    activation: readActivation(reader, 'hidden_act', 'silu'),
    layerWindows: new Int32Array(sizes.layers).fill(window === undefined ? 0 : windowOf(window, sizes.maxPositions)),
    tiedEmbeddings: reader.boolean('tie_word_embeddings', false),
  })
}
