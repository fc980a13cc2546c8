/** The TypeScript type of the native addon, by hand, in one file. Shapes and units are those of native/. */

export type BackendName = 'reference' | 'cpu' | 'cuda'
export type ComputeType = 'float64' | 'float32' | 'bfloat16'
/** Types in which parameters cross the boundary; conversion happens natively. */
export type StorageType = 'float64' | 'float32' | 'bfloat16' | 'float16'

/** One description of a decoder for every model family. */
export interface DecoderSpec {
  vocabSize: number
  hiddenSize: number
  layers: number
  heads: number
  kvHeads: number
  headDim: number
  intermediateSize: number
  /** Longest sequence; rows of the rotary table. */
  maxPositions: number
  normEpsilon: number
  /** headDim / 2 angular frequencies, scaling already applied. */
  ropeInverseFrequencies: Float64Array
  attentionBias: boolean
  attentionOutputBias: boolean
  mlpBias: boolean
  tiedEmbeddings: boolean
}

/** Conversations laid end to end, without padding. */
export interface MicroBatch {
  /** [T] token ids. */
  tokens: Int32Array
  /** [T] position inside the conversation, from 0. */
  positions: Int32Array
  /** [B + 1] first token of each conversation, and T. */
  cuSeqlens: Int32Array
  /** [T] the token that follows; ignored where the weight is 0. */
  targets: Int32Array
  /** [T] loss weight of the target; 0 = context only. */
  weights: Float32Array
}

export interface EngineOptions {
  backend: BackendName
  compute: ComputeType
  /** 0 = every core this process may use. */
  threads: number
  spec: DecoderSpec
  /** Gradients and optimizer state are allocated only for training. */
  training: boolean
  optimizer: 'adamw' | 'sgd'
  /** What trains, and how; each parameter at most once. Everything else is frozen: no gradient, no optimizer state. Default: all. */
  trainable?: ParameterGroup[]
  recompute: boolean
  /** Largest micro-batch that will come: tokens, rows that carry loss, conversations. */
  maxTokens: number
  maxSupervised: number
  maxSequences: number
  /** Positions of the key/value cache for generation; 0 = none. */
  cacheTokens: number
  /** Times every op, for profile(); costs a little. Default false. */
  profile?: boolean
}

/** Parameters that train alike. */
export interface ParameterGroup {
  /** As parameters() lists them. */
  names: string[]
  /** Multiplies the learning rate. Default 1. */
  learningRateScale?: number
  /** Of every parameter here. Default: the step's for those that decay, 0 for the others. */
  weightDecay?: number
}

/** Time spent in one op. */
export interface OpTime {
  /** With the shape of the weight for linear ones: `linear_forward 3072x576`. */
  op: string
  calls: number
  seconds: number
}

/** Bytes per kind; `total` is the arena. */
export interface MemoryPlan {
  parameters: number
  prepared: number
  gradients: number
  optimizer: number
  activations: number
  logits: number
  scratch: number
  cache: number
  total: number
}

export interface ParameterInfo {
  /** e.g. `embedding.weight`, `layers.0.attention.q.weight`, `final_norm.weight`, `head.weight`. */
  name: string
  /** [N, K] for matrices, [H] for norms and biases. */
  shape: number[]
  /** Takes part in weight decay: matrices and embeddings, not norms and biases. */
  decays: boolean
  /** False without training, and for what `trainable` leaves out: it has no gradient. */
  trained: boolean
}

export interface LossSums {
  /** Σ weight · nll. */
  loss: number
  /** Σ weight. */
  weight: number
  /** Rows with weight > 0. */
  supervised: number
  /** Of those, rows whose target is the most likely token. */
  correct: number
  /** [B] the same per conversation, in their order. */
  perSequence: Float64Array
}

export interface OptimizerStep {
  learningRate: number
  beta1: number
  beta2: number
  epsilon: number
  weightDecay: number
  /** Infinity = no clipping. */
  maxGradNorm: number
  /** 1 for the first step: bias correction. */
  step: number
}

export interface StepResult {
  /** Global L2 norm before clipping. Not finite: nothing was applied. */
  gradNorm: number
  applied: boolean
}

/** Owns one backend, one arena and one thread. Every promise is settled on the JavaScript thread. */
export interface NativeEngine {
  readonly plan: MemoryPlan
  parameters(): ParameterInfo[]
  /** Copies `bytes` (elements of `type`) into parameter `name` from element `offset` on. */
  write(name: string, offset: number, type: StorageType, bytes: Uint8Array): Promise<void>
  /** Reads `count` elements of parameter `name` from element `offset` on. */
  read(name: string, offset: number, count: number, type: StorageType): Promise<Uint8Array>
  /** Same for the accumulated gradient. */
  readGradient(name: string, offset: number, count: number, type: StorageType): Promise<Uint8Array>
  /** Must follow the last write() before any computation. */
  commit(): Promise<void>
  /** Normal(0, std) for matrices and embeddings, 1 for norms, 0 for biases; counter-based, keyed by seed and name. */
  initialize(seed: number, std: number): Promise<void>
  /**
   * Forward and backward of one micro-batch; gradients are divided by `weightSum`, the step's Σ weight.
   * `first` overwrites the gradients, later micro-batches add.
   */
  accumulate(batch: MicroBatch, weightSum: number, first: boolean): Promise<LossSums>
  optimizerStep(step: OptimizerStep): Promise<StepResult>
  evaluate(batch: MicroBatch): Promise<LossSums>
  /** [T, V] float32 logits of every row; for tests and small inputs. */
  logits(batch: MicroBatch): Promise<Float32Array>
  /** Appends tokens to the cache at `position` and returns the [V] logits after the last. */
  extend(tokens: Int32Array, position: number): Promise<Float32Array>
  /** Times since the last call, longest first; the engine must have been made with `profile`. */
  profile(): Promise<OpTime[]>
  /** Ends running and queued work within a layer's time; their promises reject with ERR_CANCELLED. */
  cancel(): void
  /** Cancels, waits for the thread and frees everything. */
  close(): void
}

export interface BackendStatus {
  name: BackendName
  available: boolean
  /** Why not, in the loader's words. */
  reason?: string
  isa?: string
  library?: string
  threads?: number
  fastBfloat16?: boolean
}

export interface Addon {
  Engine: { new (options: EngineOptions): NativeEngine }
  /** Memory an engine would take, without allocating it. */
  plan(options: EngineOptions): MemoryPlan
  backends(): BackendStatus[]
  version: string
}
