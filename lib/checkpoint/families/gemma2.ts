/** Gemma 2 (arXiv 2408.00118): norms around both blocks, softcaps, and a window in every other layer. */
import type { DecoderSpec } from '../../native/addon.ts'
import type { ConfigReader } from './config.ts'
import type { FamilyReading, ModelFamily } from './family.ts'
import { llama } from './llama.ts'
import { listParameters, llamaNames } from './parameters.ts'
import { readActivation, readLayerWindows, readSizes, readWithRope, type Sizes } from './spec.ts'

/** The norm before the MLP has a name of its own here; `post_attention_layernorm` comes after attention, as it says. */
export const gemmaNames = { ...llamaNames, mlpNorm: 'pre_feedforward_layernorm' }

export const gemma2: ModelFamily = {
  ...llama,
  name: 'gemma2',
  architecture: 'Gemma2ForCausalLM',
  read,
  parameters: (spec) => listParameters(spec, gemmaNames),
}

function read(reader: ConfigReader): FamilyReading {
  const sizes = readSizes(reader, {
    ...{ vocabSize: 256000, hiddenSize: 2304, layers: 26, heads: 8, kvHeads: 4, headDim: 256 },
    ...{ intermediateSize: 9216, maxPositions: 8192 },
  })
  const { differences, unused } = readGemma(reader, sizes)
  const window = reader.positiveIntegerOrNone('sliding_window', 4096)
  const reading = readWithRope(reader, sizes, {
    ...differences,
    attentionSoftcap: reader.positiveNumberOrNone('attn_logit_softcapping', 50) ?? 0,
    logitSoftcap: reader.positiveNumberOrNone('final_logit_softcapping', 30) ?? 0,
    layerWindows: readLayerWindows(reader, sizes, window, (layer) => layer % 2 === 0),
  })
  return { spec: reading.spec, unused: [...unused, ...reading.unused] }
}

/** What Gemma 2 and 3 have in common. */
export function readGemma(reader: ConfigReader, sizes: Sizes): { differences: Partial<DecoderSpec>; unused: string[] } {
  const attentionBias = reader.boolean('attention_bias', false)
  const named = reader.value('hidden_activation') ?? 'gelu_pytorch_tanh'
  // A leftover of Gemma 1, which Gemma's later code does not read.
  const leftover = reader.value('hidden_act')
  return {
    differences: {
      normEpsilon: reader.positiveNumber('rms_norm_eps', 1e-6),
      normUnitOffset: true,
      blockNorms: 'pre+post',
      activation: readActivation(reader, 'hidden_activation', 'gelu_pytorch_tanh'),
      attentionBias,
      attentionOutputBias: attentionBias,
      attentionScale: reader.positiveNumber('query_pre_attn_scalar', 256) ** -0.5,
      tiedEmbeddings: reader.boolean('tie_word_embeddings', true),
      // Rounded to the type of the weights in Transformers: in bfloat16 it would be √3072 = 55.5.
      embeddingScale: Math.fround(Math.sqrt(sizes.hiddenSize)),
    },
    unused: leftover === undefined || leftover === named ? [] : ['hidden_act'],
  }
}
