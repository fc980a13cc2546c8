/** What a model family is to the rest of the package: how its config reads, and what its tensors are called. */
import type { DecoderSpec } from '../../native/addon.ts'
import type { ConfigReader } from './config.ts'

/** A native parameter and the tensor that holds it in a checkpoint. */
export interface ParameterSource {
  /** Native name, e.g. `layers.0.attention.q.weight`. */
  name: string
  /** Name in the checkpoint, e.g. `model.layers.0.self_attn.q_proj.weight`. */
  tensor: string
  /** [N, K] for matrices, [N] for norms and biases: of the native parameter, and of the tensor if it has no `part`. */
  shape: number[]
  /** Where the parameter lies in the tensor, if it is not the tensor as it is. */
  part?: TensorPart
}

/**
 * The rows of a parameter inside a stored tensor that holds several, or holds them as columns: row n of the parameter
 * is row `first + ⌊n / block⌋ · stride + n mod block` of the tensor. One row of a bias is one element.
 */
export interface TensorPart {
  /** Shape of the whole tensor as it is stored. */
  tensorShape: number[]
  /** The tensor is stored as [K, rows] (GPT-2's Conv1D), so that what is a row here is a column there. */
  transposed: boolean
  first: number
  /** Rows that lie together. */
  block: number
  /** Rows of the tensor from the beginning of one block to that of the next. */
  stride: number
}

export interface FamilyReading {
  spec: DecoderSpec
  /** Fields below the top level that were not used, by path. */
  unused: string[]
}

export interface ModelFamily {
  /** `model_type` in config.json. */
  name: string
  /** The entry of `architectures` in config.json. */
  architecture: string
  /** The output projection; absent or ignored where it is tied to the embedding. */
  headTensor: string
  embeddingTensor: string
  /** What the names of all tensors but the head begin with; a file of the bare model leaves it out. */
  basePrefix: string
  /** Tensors of older exports that follow from the config: rotary tables, causal masks. */
  derivedTensors: RegExp
  /** Tensors of parts that text does not pass through: not loaded, and saved again as they are. */
  carried?: RegExp
  /** What Transformers calls a module whose tensor has another name in the file; adapters go by it. */
  moduleName?(tensor: string): string
  /** @throws ERR_INVALID_CONFIG, ERR_UNSUPPORTED_CONFIG, ERR_UNSUPPORTED_ROPE */
  read(reader: ConfigReader): FamilyReading
  /** Every parameter the spec has, with tied ones once. */
  parameters(spec: DecoderSpec): ParameterSource[]
}
