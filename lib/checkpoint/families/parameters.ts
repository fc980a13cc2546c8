/** The parameters of a decoder under the names of a family: one list, from one table of names. */
import type { DecoderSpec } from '../../native/addon.ts'
import type { ParameterSource, TensorPart } from './family.ts'

/** Where a projection lies, without `.weight` and `.bias`: a tensor's name, or rows of a tensor that holds several. */
export type Place = string | FusedPlace

export interface FusedPlace extends Omit<TensorPart, 'tensorShape'> {
  tensor: string
  /** Rows of the whole tensor. */
  rows: number
}

/** Names of the tensors of a checkpoint; those of a layer follow its prefix. Norms without `.weight` and `.bias`. */
export interface TensorNames {
  embedding: string
  positions?: string
  layer: (index: number) => string
  attentionNorm: string
  attentionPostNorm: string
  mlpNorm: string
  mlpPostNorm: string
  qNorm: string
  kNorm: string
  q: Place
  k: Place
  v: Place
  o: Place
  gate: Place
  up: Place
  down: Place
  finalNorm: string
  head: string
}

/** Llama's names, which most families have taken over. */
export const llamaNames: TensorNames = {
  embedding: 'model.embed_tokens',
  layer: (index) => `model.layers.${index}`,
  attentionNorm: 'input_layernorm',
  attentionPostNorm: 'post_attention_layernorm',
  mlpNorm: 'post_attention_layernorm',
  mlpPostNorm: 'post_feedforward_layernorm',
  qNorm: 'self_attn.q_norm',
  kNorm: 'self_attn.k_norm',
  q: 'self_attn.q_proj',
  k: 'self_attn.k_proj',
  v: 'self_attn.v_proj',
  o: 'self_attn.o_proj',
  gate: 'mlp.gate_proj',
  up: 'mlp.up_proj',
  down: 'mlp.down_proj',
  finalNorm: 'model.norm',
  head: 'lm_head',
}

/** The projections whose rows are laid one after the other in one tensor, in their order. */
export function stacked(tensor: string, rows: readonly number[], transposed = false): FusedPlace[] {
  const total = rows.reduce((sum, count) => sum + count, 0)
  let first = 0
  return rows.map((block) => {
    const place = { tensor, rows: total, transposed, first, block, stride: total }
    first += block
    return place
  })
}

/** `count` projections whose rows alternate head by head in one tensor. */
export function interleaved(tensor: string, heads: number, headDim: number, count: number): FusedPlace[] {
  return Array.from({ length: count }, (_, index) => ({
    tensor,
    rows: heads * headDim * count,
    transposed: false,
    first: index * headDim,
    block: headDim,
    stride: headDim * count,
  }))
}

/** Every parameter that the spec has, in the order of the forward pass; a tied head is none. */
export function listParameters(spec: DecoderSpec, names: TensorNames): ParameterSource[] {
  const { hiddenSize, vocabSize, intermediateSize, headDim } = spec
  const q = spec.heads * headDim
  const kv = spec.kvHeads * headDim
  const pre = spec.blockNorms !== 'post'
  const post = spec.blockNorms !== 'pre'
  const list: ParameterSource[] = []
  const norm = (name: string, tensor: string, size = hiddenSize): void => {
    list.push({ name: `${name}.weight`, tensor: `${tensor}.weight`, shape: [size] })
    if (spec.normBias) list.push({ name: `${name}.bias`, tensor: `${tensor}.bias`, shape: [size] })
  }
  const linear = (name: string, place: Place, shape: [number, number], bias: boolean, prefix = ''): void => {
    list.push(sourceOf(`${name}.weight`, place, `${prefix}$.weight`, shape))
    if (bias) list.push(sourceOf(`${name}.bias`, place, `${prefix}$.bias`, [shape[0]]))
  }
  linear('embedding', names.embedding, [vocabSize, hiddenSize], false)
  if (spec.learnedPositions > 0) {
    linear('position_embedding', names.positions!, [spec.learnedPositions, hiddenSize], false)
  }
  for (let layer = 0; layer < spec.layers; layer++) {
    const to = `layers.${layer}`
    const from = `${names.layer(layer)}.`
    if (pre) norm(`${to}.attention_norm`, from + names.attentionNorm)
    linear(`${to}.attention.q`, names.q, [q, hiddenSize], spec.attentionBias, from)
    linear(`${to}.attention.k`, names.k, [kv, hiddenSize], spec.attentionBias, from)
    linear(`${to}.attention.v`, names.v, [kv, hiddenSize], spec.attentionBias, from)
    if (spec.qkNorm !== 'none') {
      norm(`${to}.attention.q_norm`, from + names.qNorm, spec.qkNorm === 'head' ? headDim : q)
      norm(`${to}.attention.k_norm`, from + names.kNorm, spec.qkNorm === 'head' ? headDim : kv)
    }
    linear(`${to}.attention.o`, names.o, [hiddenSize, q], spec.attentionOutputBias, from)
    if (post) norm(`${to}.attention_post_norm`, from + names.attentionPostNorm)
    if (pre) norm(`${to}.mlp_norm`, from + names.mlpNorm)
    if (spec.mlp === 'gated') {
      linear(`${to}.mlp.gate`, names.gate, [intermediateSize, hiddenSize], spec.mlpBias, from)
    }
    linear(`${to}.mlp.up`, names.up, [intermediateSize, hiddenSize], spec.mlpBias, from)
    linear(`${to}.mlp.down`, names.down, [hiddenSize, intermediateSize], spec.mlpBias, from)
    if (post) norm(`${to}.mlp_post_norm`, from + names.mlpPostNorm)
  }
  norm('final_norm', names.finalNorm)
  if (!spec.tiedEmbeddings) list.push(sourceOf('head.weight', names.head, '$.weight', [vocabSize, hiddenSize]))
  if (spec.headBias) list.push(sourceOf('head.bias', names.head, '$.bias', [vocabSize]))
  return list
}

/** @param pattern the tensor's name with `$` for the place */
function sourceOf(name: string, place: Place, pattern: string, shape: number[]): ParameterSource {
  if (typeof place === 'string') return { name, tensor: pattern.replace('$', place), shape }
  const { tensor, rows, ...part } = place
  const [columns] = shape.slice(1)
  const transposed = part.transposed && columns !== undefined
  const whole = part.first === 0 && part.block === rows
  const source = { name, tensor: pattern.replace('$', tensor), shape }
  if (whole && !transposed) return source
  const tensorShape = columns === undefined ? [rows] : transposed ? [columns, rows] : [rows, columns]
  return { ...source, part: { ...part, transposed, tensorShape } }
}
