/** The TypeScript type of the native addon, by hand, in one file. Shapes and units are those of native/. */

export type BackendName = 'reference' | 'cpu' | 'cuda'
export type ComputeType = 'float64' | 'float32' | 'bfloat16'
/** Types in which parameters cross the boundary; conversion happens natively. */
export type StorageType = 'float64' | 'float32' | 'bfloat16' | 'float16'

/** One rotary table (arXiv 2104.09864). */
export interface RopeTable {
  /** [rotaryDim / 2] angular frequencies in radians per position, scaling already applied. */
  inverseFrequencies: Float64Array
  /** Multiplies cos and sin: the attention factor of yarn (arXiv 2309.00071) and longrope (arXiv 2402.13753); else 1. */
  scale: number
}

/** One description of a decoder for every model family. */
export interface DecoderSpec {
  vocabSize: number
  hiddenSize: number
  layers: number
  heads: number
  kvHeads: number
  headDim: number
  intermediateSize: number
  /** Longest conversation in tokens; rotary tables have no more rows, nor more than `maxTokens` and `cacheTokens`. */
  maxPositions: number
  /** `layer` subtracts the mean, and has a bias where `normBias` says so. */
  norm: 'rms' | 'layer'
  normEpsilon: number
  /** Gemma: y = x̂ · (1 + w). */
  normUnitOffset: boolean
  normBias: boolean
  /** `pre`: of each block's input (Llama). `post`: of its output, before it joins the residual stream (OLMo 2). */
  blockNorms: 'pre' | 'post' | 'pre+post'
  /** GPT-NeoX: x + attention(norm₁(x)) + mlp(norm₂(x)). */
  parallelResidual: boolean
  /**
   * Norm of q and k before the rotary embedding, of the same kind as the others. `head`: over each head, weights
   * [headDim] shared by the heads (Qwen3). `full`: over the whole width (OLMo 2).
   */
  qkNorm: 'none' | 'head' | 'full'
  /** On q, k and v. */
  attentionBias: boolean
  attentionOutputBias: boolean
  /** Scores are attentionScale · q·k; headDim^-0.5 almost everywhere. */
  attentionScale: number
  /** Scores become cap · tanh(scores / cap); 0 = none (Gemma 2). */
  attentionSoftcap: number
  /** [layers] tokens that a query sees, its own included; 0 = all before it. */
  layerWindows: Int32Array
  ropes: RopeTable[]
  /** [layers] index into `ropes`; -1 = no rotary embedding in this layer. */
  layerRopes: Int32Array
  /** The first so many elements of each head are rotated; headDim almost everywhere, 0 without `ropes`. */
  rotaryDim: number
  /** Conversations of more tokens read the table after their layer's (Phi-3's long factors); 0 = none. */
  longRopeThreshold: number
  /** `gated`: down(act(gate(x)) · up(x)). `plain`: down(act(up(x))). */
  mlp: 'gated' | 'plain'
  /** `gelu` is the exact one, by erf; `gelu_tanh` its approximation (arXiv 1606.08415). */
  activation: 'silu' | 'gelu' | 'gelu_tanh' | 'relu'
  mlpBias: boolean
  tiedEmbeddings: boolean
  headBias: boolean
  /** Multiplies the token embeddings (Gemma, Granite); 1 = none. */
  embeddingScale: number
  /** Rows of a learned position table that is added to the embeddings (GPT-2); 0 = none. */
  learnedPositions: number
  /** Multiplies what each block adds to the residual stream (Granite); 1 = none. */
  residualScale: number
  /** Multiplies the logits (Granite); 1 = none. */
  logitScale: number
  /** Logits become cap · tanh(logits / cap); 0 = none (Gemma 2). */
  logitSoftcap: number
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
  /** [B] number of each conversation in its step, which random masks are keyed by. Absent: 0, 1, ... */
  numbers?: Int32Array
}

/** One projection of the checkpoint's own code with its low-rank update. */
export interface AdapterModule {
  /** Its parameters are `NAME.lora_a` [rank, K], `NAME.lora_b` [N, rank] and, with DoRA, `NAME.lora_magnitude` [N]. */
  name: string
  /** The native projections it covers, in the order of its rows: `layers.0.attention.q`, ... */
  parts: string[]
  rank: number
  /** Factor of the update: alpha / rank, or alpha / √rank. */
  scale: number
}

/** LoRA (arXiv 2106.09685) beside frozen weights. */
export interface AdapterOptions {
  modules: AdapterModule[]
  /** With magnitudes (DoRA, arXiv 2402.09353). */
  dora: boolean
  /** Share of each adapter's input that a training step drops, 0 to below 1. */
  dropout: number
}

/** What the random choices of a step are keyed by, beside the place they are made for. */
export interface StepRandom {
  seed: number
  step: number
}

/** Tokens that continue sequences of the key/value cache, laid end to end. */
export interface CacheBatch {
  /** [T] token ids. */
  tokens: Int32Array
  /** [B + 1] first token of each sequence, and T. */
  cuSeqlens: Int32Array
  /** [B] which sequence of the cache, each at most once. */
  slots: Int32Array
  /** [B] position of its first token here. */
  positions: Int32Array
}

export interface EngineOptions {
  backend: BackendName
  compute: ComputeType
  /** 0 = every core this process may use. */
  threads: number
  spec: DecoderSpec
  /** Gradients and optimizer state are allocated only for training. */
  training: boolean
  optimizer: OptimizerRule
  /** What is minimised. Default: cross-entropy. evaluate() always gives that. */
  objective?: Objective
  /** What a training step does at random; accumulate() wants its seed and number then. Default: nothing. */
  random?: RandomOptions
  /** What trains, and how; each parameter at most once. Everything else is frozen: no gradient, no optimizer state. Default: all. */
  trainable?: ParameterGroup[]
  /** Absent: no adapters. They train unless `trainable` says otherwise, and then nothing else does. */
  adapters?: AdapterOptions
  /** Matrices of the layers as NF4 (QLoRA, arXiv 2305.14314); they cannot train then. Default: as they are. */
  quantization?: 'nf4'
  /** The scales of NF4 blocks quantised too; needed with `quantization`. */
  doubleQuantization?: boolean
  /** Quantised as they are written, but kept in float: what a merge is made of. Default false. */
  dequantized?: boolean
  recompute: boolean
  /** Largest micro-batch that will come: tokens, rows that carry loss, conversations. */
  maxTokens: number
  maxSupervised: number
  maxSequences: number
  /** Positions of the key/value cache for generation, of each sequence; 0 = none. */
  cacheTokens: number
  /** Sequences that are cached beside each other. Default 1. */
  cacheSequences?: number
  /** Times every op, for profile(); costs a little. Default false. */
  profile?: boolean
}

/** 'momentum' is SGD with it. 'muon' holds for the matrices of the layers, 'adamw-8bit' not for embeddings and small tensors: AdamW for the rest. */
export type OptimizerRule = 'adamw' | 'adamw-8bit' | 'lion' | 'adafactor' | 'muon' | 'sgd' | 'momentum'

/** The loss of a token whose target has the probability p: nll = -log p, lse = log Σ exp(logits). */
export interface Objective {
  /** ε of (1 - ε) · nll + ε · (lse - mean(logits)), as in PyTorch. */
  labelSmoothing: number
  /** Adds zLoss · lse² (arXiv 2204.02311). */
  zLoss: number
  /** p · nll instead, with p a constant to the gradient (arXiv 2508.05629); without the other two. */
  dft: boolean
}

/** Evaluation knows none of these. */
export interface RandomOptions {
  /** Uniform noise on the embeddings, ± neftuneAlpha / √(tokens of the conversation · hiddenSize) (arXiv 2310.05914). */
  neftuneAlpha: number
  /** Share of the embeddings, positions included, that is dropped, 0 to below 1. */
  embeddingDropout: number
  /** Share of what each block adds to the residual stream that is dropped: in the first and in the last layer. */
  residualDropout: Float64Array
}

/** Parameters that train alike. */
export interface ParameterGroup {
  /** As parameters() lists them. */
  names: string[]
  /**
   * First and number of the rows (of a bias, the elements) that train, of each of them: embedding, head and its bias can
   * train in part. readGradient() then counts from the first of them. Default: all.
   */
  rows?: Int32Array
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
  /** In float32 (float64 where that is computed in), without those that are quantised. */
  parameters: number
  quantized: number
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
  /** Σ weight · loss: of accumulate() the objective, of evaluate() nll. */
  loss: number
  /** Σ weight. */
  weight: number
  /** Rows with weight > 0. */
  supervised: number
  /** Of those, rows whose target is the most likely token. */
  correct: number
  /** [B] the same per conversation, in their order. */
  perSequence: Float64Array
  /** [supervised] nll of each row with weight > 0, in their order; from evaluate() only, and where there is one. */
  nll?: Float64Array
}

export interface OptimizerStep {
  learningRate: number
  beta1: number
  beta2: number
  epsilon: number
  /** Of 'muon' and 'momentum'. Default 0. */
  momentum?: number
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
  /** Bytes of working memory that the backend took beyond the plan: 0 where the plan was right. */
  readonly unplanned: number
  parameters(): ParameterInfo[]
  /** Copies `bytes` (elements of `type`) into parameter `name` from element `offset` on. */
  write(name: string, offset: number, type: StorageType, bytes: Uint8Array): Promise<void>
  /** Reads `count` elements of parameter `name` from element `offset` on. */
  read(name: string, offset: number, count: number, type: StorageType): Promise<Uint8Array>
  /** Same for the accumulated gradient. */
  readGradient(name: string, offset: number, count: number, type: StorageType): Promise<Uint8Array>
  /** Must follow the last write() before any computation. */
  commit(): Promise<void>
  /**
   * Normal(0, std) for matrices and embeddings, 1 for norms, 0 for biases; counter-based, keyed by seed and name.
   * Adapters stay as they are.
   */
  initialize(seed: number, std: number): Promise<void>
  /**
   * As PEFT: A uniform within ±1/√K, B zero, magnitudes the row norms of the weights, which are loaded before. With `pissa` A
   * and B are the largest singular values of the weights (arXiv 2404.02948), which keep what is left.
   */
  initializeAdapters(seed: number, pissa?: boolean): Promise<void>
  /** Writes the adapters into the weights and takes them out of the computation; for engines that do not train. */
  mergeAdapters(): Promise<void>
  /**
   * Forward and backward of one micro-batch; gradients are divided by `weightSum`, the step's Σ weight.
   * `first` overwrites the gradients, later micro-batches add. `random` is what dropout draws from.
   */
  accumulate(batch: MicroBatch, weightSum: number, first: boolean, random?: StepRandom): Promise<LossSums>
  optimizerStep(step: OptimizerStep): Promise<StepResult>
  evaluate(batch: MicroBatch): Promise<LossSums>
  /** [T, V] float32 logits of every row; for tests and small inputs. */
  logits(batch: MicroBatch): Promise<Float32Array>
  /** Appends tokens to the cache's first sequence at `position` and returns the [V] logits after the last. */
  extend(tokens: Int32Array, position: number): Promise<Float32Array>
  /** The same for several sequences at once: [B, V] logits after the last token of each. */
  extendAll(batch: CacheBatch): Promise<Float32Array>
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
