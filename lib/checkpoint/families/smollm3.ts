/** SmolLM3 (huggingface.co/blog/smollm3): Llama in which every fourth layer has no rotary embedding (arXiv 2501.18795). */
import type { ConfigReader } from './config.ts'
import type { FamilyReading, ModelFamily } from './family.ts'
import { llama } from './llama.ts'
import { readActivation, readLayerWindows, readSizes, readWithRope } from './spec.ts'

export const smollm3: ModelFamily = { ...llama, name: 'smollm3', architecture: 'SmolLM3ForCausalLM', read }

function read(reader: ConfigReader): FamilyReading {
  const sizes = readSizes(reader, { kvHeads: 4, maxPositions: 32768 })
  const named = reader.positiveIntegerOrNone('sliding_window', undefined)
  const window = reader.boolean('use_sliding_window', false) ? named : undefined
  // SmolLM3's own config says 2; no code of the family has ever read it.
  reader.value('pretraining_tp')
  const turned = readRotaryLayers(reader, sizes.layers)
  const attentionBias = reader.boolean('attention_bias', false)
  const differences = {
    normEpsilon: reader.positiveNumber('rms_norm_eps', 1e-6),
    activation: readActivation(reader, 'hidden_act', 'silu'),
    attentionBias,
    attentionOutputBias: attentionBias,
    mlpBias: reader.boolean('mlp_bias', false),
    layerWindows: readLayerWindows(reader, sizes, window, (layer) => window !== undefined && !turned[layer]),
    layerRopes: Int32Array.from(turned, (turns) => (turns ? 0 : -1)),
    tiedEmbeddings: reader.boolean('tie_word_embeddings', true),
  }
  return readWithRope(reader, sizes, differences, { theta: 2_000_000 })
}

/** In `no_rope_layers`, against its name, 1 is a layer with rotary embedding and 0 one without. */
function readRotaryLayers(reader: ConfigReader, layers: number): boolean[] {
  const interval = reader.positiveInteger('no_rope_layer_interval', 4)
  const list = reader.value('no_rope_layers')
  if (list === undefined) return Array.from({ length: layers }, (_, layer) => (layer + 1) % interval !== 0)
  if (Array.isArray(list) && list.length >= layers && list.every((entry) => entry === 0 || entry === 1)) {
    return list.slice(0, layers).map((entry) => entry === 1)
  }
  throw reader.invalid('no_rope_layers', list, `a list of 0 and 1, one for each of the ${layers} layers`)
}
