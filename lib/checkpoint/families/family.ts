/** What a model family is to the rest of the package: how its config reads, and what its tensors are called. */
import type { DecoderSpec } from '../../native/addon.ts'
import type { ConfigReader } from './config.ts'

/** A native parameter and the tensor that holds it in a checkpoint. */
export interface ParameterSource {
  /** Native name, e.g. `layers.0.attention.q.weight`. */
  name: string
  /** Name in the checkpoint, e.g. `model.layers.0.self_attn.q_proj.weight`. */
  tensor: string
  /** [N, K] for matrices, [N] for norms and biases; the same on both sides. */
  shape: number[]
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
  /** Tensors of older exports that follow from the config: rotary tables, causal masks. */
  derivedTensors: RegExp
  /** @throws ERR_INVALID_CONFIG, ERR_UNSUPPORTED_CONFIG, ERR_UNSUPPORTED_ROPE */
  read(reader: ConfigReader): FamilyReading
  /** Every parameter the spec has, with tied ones once. */
  parameters(spec: DecoderSpec): ParameterSource[]
}
