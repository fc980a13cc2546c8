/** What a Trainer tells while it works, and what plan() and fit() return. Tokens are counted, times are in seconds. */

import { EventEmitter } from 'node:events'
import type TypedEmitter from 'typed-emitter'
import type { MixturePart } from '../batch/mixture.ts'
import type { Packing } from '../batch/packing.ts'
import type { DataCounts } from '../batch/prepared.ts'
import type { Warning } from '../errors.ts'
import type { Prompt } from '../generate/prompt.ts'
import type { BackendName, ComputeType, MemoryPlan } from '../native/addon.ts'
import type { UsedPreset } from './presets.ts'

/** What a run will do, known before its first step. */
export interface TrainingPlan {
  /** Present with a preset: its source and what it sets in this run. */
  preset?: UsedPreset
  /** Present with `addTokens`. */
  newTokens?: { text: string; id: number }[]
  /** Numbers in the model, tied ones once. */
  parameters: number
  /** Of those, how many training changes. */
  trainable: number
  /** Conversations that train, after dropping; of a mixture all that it draws from. */
  conversations: number
  evalConversations: number
  /** Tokens of one epoch. */
  tokens: number
  /** Of those, tokens that carry loss. */
  supervisedTokens: number
  evalTokens: number
  /** The longest conversation in tokens, and where it stands (`file:line`). */
  longest: { tokens: number; source: string }
  /** Optimizer steps of the whole run. */
  steps: number
  stepsPerEpoch: number
  /** May be a fraction where `maxSteps` ends the run. */
  epochs: number
  /** Steps over which the learning rate rises. */
  warmupSteps: number
  /** Conversations per step; absent with `batchTokens`. */
  batchSize?: number
  /** Tokens per step; absent with `batchSize`. */
  batchTokens?: number
  microBatchTokens: number
  /** Micro-batches of the first epoch, or of the run where it is shorter. */
  microBatches: number
  /** How well these are filled. */
  packing: Packing
  /** Bytes per kind. */
  memory: MemoryPlan
  /** Absent where nothing was measured yet. */
  estimatedSeconds?: number
  /** Prompts that are completed during training, and positions of the cache that this takes; absent without. */
  samples?: { prompts: number; cacheTokens: number }
  device: BackendName
  precision: ComputeType
  threads: number
  /** The row layout of each data file and what it was told from. */
  formats: { file: string; format: string; evidence: string }[]
  /** What an epoch draws of each entry of `data.train`; absent where every conversation is used once. */
  mixture?: MixturePart[]
  /** Where the chat template comes from: 'model', a built-in name or a file; 'none' for plain text. */
  template: string
  /** Everything that was read and what became of it. */
  data: DataCounts
}

export interface StartEvent {
  steps: number
  epochs: number
  device: BackendName
  precision: ComputeType
  threads: number
  parameters: number
  /** Absolute folder of the run. */
  output: string
}

/** Progress of what comes before the first step. */
export interface PrepareEvent {
  stage: 'download' | 'data' | 'model'
  /** Bytes fetched from the hub, rows read and tokenized, or bytes of weights loaded. */
  done: number
  total?: number
  /** The data was prepared by an earlier run and comes from the cache. */
  cached?: true
}

export interface StepEvent {
  /** From 1. */
  step: number
  steps: number
  /** Epochs done after this step, a fraction. */
  epoch: number
  /** Σ weight·nll / Σ weight over the whole step, nats per token. */
  loss: number
  /** The rate this step used. */
  learningRate: number
  /** Global L2 norm before clipping. */
  gradNorm: number
  /** Tokens of this step that carry loss. */
  supervisedTokens: number
  /** All tokens of this step. */
  totalTokens: number
  /** Into how many micro-batches they were packed. */
  microBatches: number
  /** All tokens of this step over its wall time. */
  tokensPerSecond: number
}

export interface EvalEvent {
  step: number
  epoch: number
  /** Σ weight·nll / Σ weight over the evaluation set, nats per token. */
  loss: number
  /** exp(loss). */
  perplexity: number
  /** Share of supervised tokens that are the most likely one, 0 to 1. */
  tokenAccuracy: number
  supervisedTokens: number
}

/** The completion of one of the prompts in the option `samples`. */
export interface SampleEvent {
  /** Steps done; 0 before the first. */
  step: number
  epoch: number
  /** Number of the prompt, from 0. */
  index: number
  prompt: Prompt
  /** Without stop token and stop string. */
  text: string
  /** 'stop': a stop token or stop string came; 'length': maxNewTokens or the context was reached. */
  finishReason: 'stop' | 'length'
  /** How many were generated, the stop token included. */
  tokens: number
}

export interface CheckpointEvent {
  /** Absolute folder. */
  path: string
  step: number
}

export interface FitResult {
  /** Absolute folder of the final checkpoint. */
  output: string
  /** Absolute path of the file with one JSON event per line. */
  metrics: string
  steps: number
  epochs: number
  history: { steps: StepEvent[]; evals: EvalEvent[]; samples: SampleEvent[] }
  /** Loss of the last step. */
  loss: number
  /** Tokens that went through training, repeats counted. */
  totalTokens: number
  supervisedTokens: number
  /** How well the micro-batches of the run were filled. */
  packing: Packing
  /** Wall time of training and evaluation, without preparation. */
  seconds: number
  data: DataCounts
}

export type TrainerEvents = {
  plan: (plan: TrainingPlan) => void
  start: (event: StartEvent) => void
  prepare: (event: PrepareEvent) => void
  step: (event: StepEvent) => void
  eval: (event: EvalEvent) => void
  sample: (event: SampleEvent) => void
  checkpoint: (event: CheckpointEvent) => void
  warning: (event: Warning) => void
  end: (result: FitResult) => void
}

/** Node's EventEmitter with the events above as its types. */
export type TrainerEmitter = TypedEmitter.default<TrainerEvents>
export const TrainerEmitter = EventEmitter as new () => TrainerEmitter
