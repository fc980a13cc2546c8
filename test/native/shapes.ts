/** Small decoders in the shape of every family that people fine-tune, and some that mix their parts. */
import type { DecoderSpec } from '../../lib/native/addon.ts'
import { ropeTable } from './models.ts'

const noRope = { ropes: [], layerRopes: Int32Array.of(-1, -1, -1), rotaryDim: 0 }
const biases = { attentionBias: true, attentionOutputBias: true, mlpBias: true }

/** Changes to smallSpec(); three layers where the number is not given. */
export const shapes: Record<string, Partial<DecoderSpec>> = {
  'tied, grouped-query': {},
  'untied, biases everywhere': { tiedEmbeddings: false, ...biases },
  'one layer, one head': { layers: 1, heads: 1, kvHeads: 1, headDim: 16 },
  'head size unlike hidden/heads, odd sizes': {
    hiddenSize: 20,
    heads: 6,
    kvHeads: 3,
    headDim: 10,
    intermediateSize: 33,
  },
  'Mistral: a window': { layerWindows: Int32Array.of(5, 5, 5) },
  'Qwen 3: norms per head': { qkNorm: 'head', headDim: 10, attentionBias: true },
  'OLMo 2: norms behind the blocks and over whole q and k': {
    blockNorms: 'post',
    qkNorm: 'full',
    tiedEmbeddings: false,
  },
  'Gemma 2: norms on both sides with 1 + w, caps, windows in turn': {
    normUnitOffset: true,
    blockNorms: 'pre+post',
    attentionScale: 0.2,
    attentionSoftcap: 2,
    layerWindows: Int32Array.of(4, 0, 4),
    activation: 'gelu_tanh',
    embeddingScale: 24 ** 0.5,
    logitSoftcap: 3,
  },
  'Gemma 3: two rotary tables': {
    normUnitOffset: true,
    blockNorms: 'pre+post',
    qkNorm: 'head',
    layerWindows: Int32Array.of(3, 3, 0),
    ropes: [ropeTable(8, 1_000_000), ropeTable(8)],
    layerRopes: Int32Array.of(1, 1, 0),
    activation: 'gelu_tanh',
    embeddingScale: 24 ** 0.5,
  },
  'Phi-3: a second table for long conversations': {
    ropes: [ropeTable(8, 10_000, 1.2), ropeTable(8, 300, 1.2)],
    longRopeThreshold: 10,
    layerWindows: Int32Array.of(20, 20, 20),
  },
  'SmolLM 3: a layer without rotation': { layerRopes: Int32Array.of(0, -1, 0) },
  'last layer without rotation': { layerRopes: Int32Array.of(0, 0, -1) },
  'GPT-2: LayerNorm, learned positions, no gates': {
    norm: 'layer',
    normBias: true,
    kvHeads: 4,
    mlp: 'plain',
    activation: 'gelu_tanh',
    learnedPositions: 70,
    ...noRope,
    ...biases,
  },
  'GPT-NeoX: parallel residual, part of each head rotated': {
    norm: 'layer',
    normBias: true,
    parallelResidual: true,
    kvHeads: 4,
    rotaryDim: 2,
    mlp: 'plain',
    activation: 'gelu',
    tiedEmbeddings: false,
    ...biases,
  },
  'StableLM: LayerNorm with gates': { norm: 'layer', normBias: true, rotaryDim: 4, attentionBias: true },
  'Granite: scales everywhere': {
    embeddingScale: 12,
    attentionScale: 0.3,
    residualScale: 0.22,
    logitScale: 1 / 8,
  },
  'Phi: parallel residual, a bias on the head': {
    norm: 'layer',
    normBias: true,
    parallelResidual: true,
    rotaryDim: 4,
    mlp: 'plain',
    activation: 'gelu_tanh',
    headBias: true,
    tiedEmbeddings: false,
    ...biases,
  },
  'parallel residual of RMSNorms with scales and caps': {
    parallelResidual: true,
    qkNorm: 'head',
    residualScale: 0.5,
    logitScale: 2,
    logitSoftcap: 4,
    headBias: true,
  },
  'norms behind the blocks with scales': { blockNorms: 'post', residualScale: 0.7, mlp: 'plain', activation: 'relu' },
  'LayerNorm without biases, one layer': { norm: 'layer', layers: 1, parallelResidual: true },
}
