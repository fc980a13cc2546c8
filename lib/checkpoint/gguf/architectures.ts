/**
 * The families as llama.cpp knows them: the name of the architecture, its metadata, and which tensors it reads. What
 * llama.cpp computes otherwise than the family's own code is refused by name.
 */
import { TunesmithError } from '../../errors.ts'
import type { DecoderSpec } from '../../native/addon.ts'
import type { JsonObject } from '../json.ts'
import { ropeMetadata, ropeTensors } from './rope.ts'
import { bool, float32, type MetadataValue, string, uint32 } from './values.ts'

/** A tensor of the file, made of the rows of native parameters one after the other, or of values made here. */
export interface TensorPlan {
  name: string
  parameters: string[]
  /** [N, K] or [N]. */
  shape: number[]
  /**
   * Heads whose rows alternate between first and second half: llama.cpp's `llama` rotates neighbours, where
   * Transformers rotates element i with element i + headDim / 2.
   */
  interleavedHeads?: number
  /** Added to every element: llama.cpp keeps Gemma's 1 + w. */
  add?: number
  values?: Float32Array
}

interface Architecture {
  name: string
  activation: DecoderSpec['activation']
  /** Biases that llama.cpp reads; a model with others is refused. */
  biases?: 'qkv' | 'all'
  /** A head of its own is read even where the model ties it to the embedding. */
  needsHead?: boolean
  /** q and k of these rotate neighbours. */
  interleaved?: boolean
  fusedQkv?: boolean
  fusedGateUp?: boolean
  /** Further metadata by key without the architecture's name. */
  extra?: (spec: DecoderSpec) => [string, MetadataValue][]
  /** What must hold beyond what the reading of the config has checked; the reason where it does not. */
  refuse?: (spec: DecoderSpec) => string | undefined
}

const slidingWindow = (spec: DecoderSpec): [string, MetadataValue][] => {
  const window = Math.max(...spec.layerWindows)
  return window > 0 ? [['attention.sliding_window', uint32(window)]] : []
}
/** Layers with a window where `every` says so: the last of each period sees everything. */
const alternates = (spec: DecoderSpec, every: number) =>
  spec.layerWindows.every((window, layer) => window > 0 === ((layer + 1) % every !== 0))
const usualScale = (spec: DecoderSpec) => Math.abs(spec.attentionScale * Math.sqrt(spec.headDim) - 1) < 1e-6

/** By `model_type`. */
const architectures: Record<string, Architecture> = {
  llama: { name: 'llama', activation: 'silu', biases: 'all', interleaved: true },
  mistral: { name: 'llama', activation: 'silu', interleaved: true },
  qwen2: { name: 'qwen2', activation: 'silu', biases: 'qkv' },
  qwen3: { name: 'qwen3', activation: 'silu' },
  olmo2: { name: 'olmo2', activation: 'silu', needsHead: true },
  smollm3: {
    name: 'smollm3',
    activation: 'silu',
    interleaved: true,
    refuse: (spec) =>
      spec.layerRopes.every((rope, layer) => rope < 0 === ((layer + 1) % 4 === 0))
        ? undefined
        : 'llama.cpp leaves the rotary embedding out of every fourth layer, this model of others',
  },
  granite: {
    name: 'granite',
    activation: 'silu',
    biases: 'all',
    interleaved: true,
    extra: (spec) => [
      ['embedding_scale', float32(spec.embeddingScale)],
      ['residual_scale', float32(spec.residualScale)],
      ['attention.scale', float32(spec.attentionScale)],
      ['logit_scale', float32(1 / spec.logitScale)],
    ],
  },
  gemma2: {
    name: 'gemma2',
    activation: 'gelu_tanh',
    extra: (spec) => [
      ['attn_logit_softcapping', float32(spec.attentionSoftcap)],
      ['final_logit_softcapping', float32(spec.logitSoftcap)],
      ...slidingWindow(spec),
    ],
    refuse: (spec) => {
      if (!(spec.attentionSoftcap > 0 && spec.logitSoftcap > 0))
        return 'llama.cpp caps scores and logits, this model does not'
      return alternates(spec, 2) ? undefined : 'llama.cpp gives every other layer a window, this model others'
    },
  },
  gemma3_text: {
    name: 'gemma3',
    activation: 'gelu_tanh',
    extra: slidingWindow,
    refuse: (spec) => {
      if (spec.attentionSoftcap > 0 || spec.logitSoftcap > 0)
        return 'llama.cpp caps neither scores nor logits, this model does'
      return alternates(spec, 6) ? undefined : 'llama.cpp leaves every sixth layer without a window, this model others'
    },
  },
  phi3: { name: 'phi3', activation: 'silu', fusedQkv: true, fusedGateUp: true, extra: slidingWindow },
  gpt2: { name: 'gpt2', activation: 'gelu_tanh', biases: 'all', fusedQkv: true },
  gpt_neox: {
    name: 'gptneox',
    activation: 'gelu_tanh',
    biases: 'all',
    needsHead: true,
    fusedQkv: true,
    extra: (spec) => [['use_parallel_residual', bool(spec.parallelResidual)]],
  },
  stablelm: {
    name: 'stablelm',
    activation: 'silu',
    biases: 'qkv',
    needsHead: true,
    refuse: (spec) => (spec.parallelResidual ? 'one norm for attention and MLP at once is not exported' : undefined),
  },
}

/** Families that can be exported. */
export const ggufFamilies: readonly string[] = Object.keys(architectures)

export interface ArchitecturePlan {
  metadata: [string, MetadataValue][]
  tensors: TensorPlan[]
  warnings: string[]
}

/**
 * @param family `model_type`
 * @param config config.json
 * @throws ERR_GGUF_UNSUPPORTED where llama.cpp has no such architecture, or computes something else
 */
export function planArchitecture(
  family: string,
  spec: DecoderSpec,
  config: JsonObject,
  name: string,
): ArchitecturePlan {
  const architecture = architectures[family]
  if (!architecture) throw unsupported(`its type is ${family}; ${ggufFamilies.join(', ')} can be`)
  const warnings: string[] = []
  const reason = refusal(architecture, spec, warnings)
  if (reason !== undefined) throw unsupported(reason)
  const rope = ropeMetadata(architecture.name, spec, config, unsupported)
  if (spec.longRopeThreshold > 0)
    warnings.push(
      `llama.cpp takes the long rotary factors where its context is over ${spec.longRopeThreshold} tokens, whatever the ` +
        'length of the conversation: run it with a smaller one for conversations that fit',
    )
  let context = spec.maxPositions
  // llama.cpp's `llama` and `qwen2` know no windows: up to the window's length there is no difference.
  const windows = spec.layerWindows.filter((window) => window > 0)
  if (windows.length > 0 && architecture.extra !== slidingWindow && family !== 'gemma2') {
    context = Math.min(context, ...windows)
    warnings.push(
      `llama.cpp has no sliding window for ${architecture.name}; the exported context ends at the window, ${context} tokens`,
    )
  }
  const own: [string, MetadataValue][] = [
    ['context_length', uint32(context)],
    ['embedding_length', uint32(spec.hiddenSize)],
    ['block_count', uint32(spec.layers)],
    ['feed_forward_length', uint32(spec.intermediateSize)],
    ['attention.head_count', uint32(spec.heads)],
    ['attention.head_count_kv', uint32(spec.kvHeads)],
    ['attention.key_length', uint32(spec.headDim)],
    ['attention.value_length', uint32(spec.headDim)],
    [
      spec.norm === 'rms' ? 'attention.layer_norm_rms_epsilon' : 'attention.layer_norm_epsilon',
      float32(spec.normEpsilon),
    ],
    ['vocab_size', uint32(spec.vocabSize)],
    ...rope,
    ...(architecture.extra?.(spec) ?? []),
  ]
  return {
    metadata: [
      ['general.architecture', string(architecture.name)],
      ['general.type', string('model')],
      ['general.name', string(name)],
      ['general.quantization_version', uint32(2)],
      ...own.map(([key, value]): [string, MetadataValue] => [`${architecture.name}.${key}`, value]),
    ],
    tensors: planTensors(architecture, spec, config),
    warnings,
  }
}

/** What llama.cpp would compute otherwise; small differences are warnings. */
function refusal(architecture: Architecture, spec: DecoderSpec, warnings: string[]): string | undefined {
  const { name, activation, biases } = architecture
  if (spec.activation !== activation) {
    if (spec.activation !== 'gelu' || activation !== 'gelu_tanh')
      return `llama.cpp's ${name} has the activation ${activation}, this model ${spec.activation}`
    warnings.push(
      'llama.cpp approximates GELU by tanh, this model has the exact one: probabilities differ in the third digit',
    )
  }
  if (spec.attentionBias && biases === undefined) return `llama.cpp's ${name} has no biases on q, k and v`
  if ((spec.attentionOutputBias || spec.mlpBias) && biases !== 'all')
    return `llama.cpp's ${name} has no biases on the output projection and the MLP`
  if (name !== 'granite' && !usualScale(spec))
    return `llama.cpp's ${name} scales attention scores by headDim^-0.5, this model by ${spec.attentionScale}`
  return architecture.refuse?.(spec)
}

function planTensors(architecture: Architecture, spec: DecoderSpec, config: JsonObject): TensorPlan[] {
  const { hiddenSize: hidden, vocabSize, intermediateSize: inner, headDim } = spec
  const [q, kv] = [spec.heads * headDim, spec.kvHeads * headDim]
  const pre = spec.blockNorms !== 'post'
  const post = spec.blockNorms !== 'pre'
  const tensors: TensorPlan[] = []
  const add = (name: string, parameters: string[], shape: number[], more: Partial<TensorPlan> = {}): void => {
    tensors.push({ name, parameters, shape, ...more })
  }
  const norm = (to: string, from: string, size = hidden): void => {
    add(`${to}.weight`, [`${from}.weight`], [size], spec.normUnitOffset ? { add: 1 } : {})
    if (spec.normBias) add(`${to}.bias`, [`${from}.bias`], [size])
  }
  const linear = (to: string, from: string[], shape: [number, number], bias: boolean, heads?: number): void => {
    const more = heads !== undefined && architecture.interleaved ? { interleavedHeads: heads } : {}
    const named = (kind: string) => from.map((part) => `${part}.${kind}`)
    add(`${to}.weight`, named('weight'), shape, more)
    if (bias) add(`${to}.bias`, named('bias'), [shape[0]], more)
  }
  add('token_embd.weight', ['embedding.weight'], [vocabSize, hidden])
  if (spec.learnedPositions > 0) {
    add('position_embd.weight', ['position_embedding.weight'], [spec.learnedPositions, hidden])
  }
  tensors.push(...ropeTensors(architecture.name, spec, config))
  for (let layer = 0; layer < spec.layers; layer++) {
    const from = `layers.${layer}.`
    const to = `blk.${layer}.`
    const part = (name: string) => `${from}attention.${name}`
    if (pre) norm(`${to}attn_norm`, `${from}attention_norm`)
    if (architecture.fusedQkv) {
      linear(`${to}attn_qkv`, ['q', 'k', 'v'].map(part), [q + 2 * kv, hidden], spec.attentionBias)
    } else {
      linear(`${to}attn_q`, [part('q')], [q, hidden], spec.attentionBias, spec.heads)
      linear(`${to}attn_k`, [part('k')], [kv, hidden], spec.attentionBias, spec.kvHeads)
      linear(`${to}attn_v`, [part('v')], [kv, hidden], spec.attentionBias)
    }
    if (spec.qkNorm !== 'none') {
      norm(`${to}attn_q_norm`, part('q_norm'), spec.qkNorm === 'head' ? headDim : q)
      norm(`${to}attn_k_norm`, part('k_norm'), spec.qkNorm === 'head' ? headDim : kv)
    }
    linear(`${to}attn_output`, [part('o')], [hidden, q], spec.attentionOutputBias)
    if (post) norm(`${to}post_attention_norm`, `${from}attention_post_norm`)
    if (pre) norm(`${to}ffn_norm`, `${from}mlp_norm`)
    const up = `${from}mlp.up`
    const gate = `${from}mlp.gate`
    if (architecture.fusedGateUp) {
      linear(`${to}ffn_up`, [gate, up], [2 * inner, hidden], spec.mlpBias)
    } else {
      if (spec.mlp === 'gated') linear(`${to}ffn_gate`, [gate], [inner, hidden], spec.mlpBias)
      linear(`${to}ffn_up`, [up], [inner, hidden], spec.mlpBias)
    }
    linear(`${to}ffn_down`, [`${from}mlp.down`], [hidden, inner], spec.mlpBias)
    if (post) norm(`${to}post_ffw_norm`, `${from}mlp_post_norm`)
  }
  norm('output_norm', 'final_norm')
  if (!spec.tiedEmbeddings) add('output.weight', ['head.weight'], [vocabSize, hidden])
  else if (architecture.needsHead) add('output.weight', ['embedding.weight'], [vocabSize, hidden])
  if (spec.headBias) add('output.bias', ['head.bias'], [vocabSize])
  return tensors
}

function unsupported(what: string): TunesmithError {
  return new TunesmithError('ERR_GGUF_UNSUPPORTED', `This model cannot be exported to GGUF: ${what}.`)
}
