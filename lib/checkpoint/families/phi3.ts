/** Phi-3 and Phi-4-mini (arXiv 2404.14219, 2503.01743): one tensor for q, k and v, one for gate and up; longrope. */
import type { DecoderSpec } from '../../native/addon.ts'
import type { ConfigReader } from './config.ts'
import type { FamilyReading, ModelFamily, ParameterSource } from './family.ts'
import { llama } from './llama.ts'
import { listParameters, llamaNames, stacked } from './parameters.ts'
import { readActivation, readSizes, readWithRope, windowOf } from './spec.ts'

export const phi3: ModelFamily = { ...llama, name: 'phi3', architecture: 'Phi3ForCausalLM', read, parameters }

function read(reader: ConfigReader): FamilyReading {
  const sizes = readSizes(reader, { maxPositions: 4096 })
  // Microsoft's folders bring a copy of the family's code, which Transformers does not need.
  if (/"[\w.-]*\.Phi3ForCausalLM"/.test(JSON.stringify(reader.config.auto_map) ?? '')) reader.value('auto_map')
  const window = reader.positiveIntegerOrNone('sliding_window', undefined)
  const differences: Partial<DecoderSpec> = {
    normEpsilon: reader.positiveNumber('rms_norm_eps', 1e-5),
    activation: readActivation(reader, 'hidden_act', 'silu'),
    layerWindows: new Int32Array(sizes.layers).fill(window === undefined ? 0 : windowOf(window, sizes.maxPositions)),
    tiedEmbeddings: reader.boolean('tie_word_embeddings', false),
  }
  return readWithRope(reader, sizes, differences, {
    partial: reader.positiveNumber('partial_rotary_factor', 1),
    types: ['default', 'longrope'],
    originalMaxPositions: 4096,
  })
}

function parameters(spec: DecoderSpec): ParameterSource[] {
  const kvRows = spec.kvHeads * spec.headDim
  const [q, k, v] = stacked('self_attn.qkv_proj', [spec.heads * spec.headDim, kvRows, kvRows])
  const [gate, up] = stacked('mlp.gate_up_proj', [spec.intermediateSize, spec.intermediateSize])
  return listParameters(spec, { ...llamaNames, q: q!, k: k!, v: v!, gate: gate!, up: up! })
}
