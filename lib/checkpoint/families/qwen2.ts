/** Qwen2 and Qwen2.5 (arXiv 2407.10671, 2412.15115): Llama with biases on q, k and v, and windows in later layers. */
import type { ConfigReader } from './config.ts'
import type { FamilyReading, ModelFamily } from './family.ts'
import { llama } from './llama.ts'
import { readActivation, readLayerWindows, readSizes, readWithRope, type Sizes } from './spec.ts'

export const qwen2: ModelFamily = { ...llama, name: 'qwen2', architecture: 'Qwen2ForCausalLM', read }

function read(reader: ConfigReader): FamilyReading {
  const sizes = readSizes(reader, { kvHeads: 32, maxPositions: 32768 })
  return readWithRope(reader, sizes, {
    normEpsilon: reader.positiveNumber('rms_norm_eps', 1e-6),
    activation: readActivation(reader, 'hidden_act', 'silu'),
    attentionBias: true,
    layerWindows: readQwenWindows(reader, sizes),
    tiedEmbeddings: reader.boolean('tie_word_embeddings', false),
  })
}

/** The window counts only with `use_sliding_window`, and then in the layers from `max_window_layers` on. */
export function readQwenWindows(reader: ConfigReader, sizes: Sizes): Int32Array {
  const named = reader.positiveIntegerOrNone('sliding_window', 4096)
  const window = reader.boolean('use_sliding_window', false) ? named : undefined
  const first = reader.value('max_window_layers') ?? 28
  if (typeof first !== 'number') throw reader.invalid('max_window_layers', first, 'a number of layers')
  return readLayerWindows(reader, sizes, window, (layer) => window !== undefined && layer >= first)
}
