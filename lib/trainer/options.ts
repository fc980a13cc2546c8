/**
 * The options of a run: what a user may write (TrainerOptions), what the trainer works with (ResolvedOptions), and the
 * one function that turns the first into the second. Nothing is ignored: a key that means nothing here is refused.
 */
import { resolve } from 'node:path'
import type { z } from 'zod'
import { defaultCacheFolder } from '../batch/cache/cache.ts'
import type { TooLongPolicy } from '../batch/prepared.ts'
import type { Message } from '../data/conversation.ts'
import type { RowFormat } from '../data/layouts/layout.ts'
import type { SamplingOptions } from '../generate/sampling.ts'
import { type Every, parseEvery } from './every.ts'
import { conflicts } from './option-conflicts.ts'
import { optionError, schemaProblems } from './option-errors.ts'
import { absolutePaths, isRecord } from './option-paths.ts'
import { schema } from './option-schema.ts'
import { type PresetName, type UsedPreset, withPreset } from './presets.ts'
import { type RegularisationOptions, type ResolvedRegularisation, resolveRegularisation } from './regularisation.ts'

/** A data file, or a glob (`*`, `?`, `**`) of several, as one part of a mixture. */
export interface DataFile {
  path: string
  /** Layout of the rows where it differs from `data.format`. */
  format?: DataFormat | undefined
  /**
   * Share of this entry's conversations that an epoch draws, above 0: 0.25 draws a quarter of them, another one in every
   * epoch until all have had their turn; 2 draws each twice. Default 1. Only for training data.
   */
  proportion?: number | undefined
}

/**
 * Layout of the rows, as docs/data.md describes them: 'messages', 'sharegpt', 'alpaca', 'prompt-completion', 'text',
 * 'tokens'; 'auto' tells it from the first rows of each file.
 */
export type DataFormat = RowFormat

/** Weights to start from when there is no checkpoint: random, from a configuration and a tokenizer. */
export interface RandomModel {
  /** Path of a `config.json` or of a folder with one, or its content. */
  config: string | Record<string, unknown>
  /** Folder with `tokenizer.json` and, where there is one, `tokenizer_config.json`. */
  tokenizer: string
  init: 'random'
}

export type OptimizerName = 'adamw' | 'adamw-8bit' | 'lion' | 'adafactor' | 'muon' | 'sgd'

export interface ParameterGroupOptions {
  /** Tensors by name, as in `train`. */
  pattern: string
  /** Multiplies the learning rate, its warmup and its course. Default 1. */
  learningRateScale?: number | undefined
  /** Instead of `weightDecay`, and of every tensor here, norms and biases too. Default: as elsewhere. */
  weightDecay?: number | undefined
}

/** Completions of fixed prompts during training, told by the event `sample`. */
export interface SampleOptions extends SamplingOptions {
  /** Messages, or texts: each is a user's turn, or continued as it is where the run has no chat template (plain text rows). */
  prompts: (string | Message[])[]
  /** As `evalEvery`; also before the first step and at the end. Default '1epoch'. */
  every?: number | string | undefined
  /** Default 128. */
  maxNewTokens?: number | undefined
  /** Ends a completion before the first of these that comes. Default none. */
  stop?: string | string[] | undefined
}

export interface DataOptions {
  /**
   * Training data: a path, a glob, or a list of them; JSONL, JSON, CSV or Parquet, one conversation per row. Or a dataset of
   * the hub: `org/name`, `hf://datasets/org/name[@revision][/path or glob]`.
   */
  train: string | DataFile | (string | DataFile)[]
  /** Evaluation data, as `train`. Excludes `evalFraction`. */
  eval?: string | DataFile | (string | DataFile)[] | undefined
  /**
   * Share of the training conversations set aside for evaluation, 0 to below 1. Conversations with the same first user
   * turn stay on one side. Default 0. Excludes `eval`.
   */
  evalFraction?: number | undefined
  /** Layout of the rows. Default 'auto': told from the first rows of each file. */
  format?: DataFormat | undefined
  /** What a malformed row does: 'error' ends the run and names it, 'skip' counts and names it. Default 'error'. */
  onBadRow?: 'error' | 'skip' | undefined
}

/** Everything a run can be told; undefined is as good as absent. Relative paths start at the working directory, in a configuration file at its folder. */
export interface TrainerOptions extends RegularisationOptions {
  /**
   * A published recipe: 'llama2', 'tulu3', 'lima', 'zephyr', 'smol' or 'lora'. It sets options that are not given here; plan tells
   * which. Default: none.
   */
  preset?: PresetName | undefined
  /**
   * Checkpoint to start from: a Hugging Face folder, or `org/name[@revision]` on the hub where no such folder exists; or
   * `{ config, tokenizer, init: 'random' }`.
   */
  model: string | RandomModel
  /** Folder of the run; the final checkpoint is the folder itself. */
  output: string
  data: DataOptions

  /**
   * 'model' (the checkpoint's own), a built-in one ('chatml', 'llama3', 'zephyr', 'mistral', 'gemma', 'alpaca', 'plain'),
   * or the path of a Jinja file or a tokenizer_config.json. Default 'model'.
   */
  chatTemplate?: string | undefined
  /**
   * Variables for the template, such as `{ enable_thinking: false }`: JSON values by name. They become defaults in the
   * template that is exported, so that inference renders alike. Default none.
   */
  templateVariables?: Record<string, unknown> | undefined
  /**
   * What happens where the template renders an earlier turn differently once later ones follow: 'split' makes one
   * example per assistant turn, 'error' refuses. Default 'split'.
   */
  historyRewrite?: 'split' | 'error' | undefined
  /**
   * Text that spells a control token: 'error' refuses the row, 'keep' lets it become the token, 'escape' tokenises it as
   * the ordinary text it is, together with the words around it. Default 'error'.
   */
  controlTokensInText?: 'error' | 'keep' | 'escape' | undefined
  /** Turns that carry loss: 'assistant' every assistant turn, 'last' the last one only, 'all' every token. Default 'assistant'. */
  trainOn?: 'assistant' | 'last' | 'all' | undefined
  /** Loss weight of the tokens `trainOn` leaves out, 0 to 1. Default 0. */
  promptLossWeight?: number | undefined
  /** Tokens per conversation. Default: the model's context. */
  maxLength?: number | undefined
  /**
   * A conversation over `maxLength`: 'drop' counts and names it, and more than 5 % of such rows is an error; 'error'
   * refuses the first. 'truncate-turns' ends it after the last trained turn that fits whole, 'truncate-right' keeps the
   * beginning and 'truncate-left' the end, after bos; a row that has no token with loss left is dropped. What is cut is
   * counted. Default 'drop'.
   */
  onTooLong?: TooLongPolicy | undefined
  /**
   * Keeps prepared data on disk, so that the next run on the same data, template, tokenizer and options starts at once:
   * true, false, or the folder. Up to 10 GiB; the oldest goes first. Default true: `$XDG_CACHE_HOME/tunesmith/prepared`,
   * by default `~/.cache/tunesmith/prepared`.
   */
  cache?: boolean | string | undefined

  /** Passes over the data; a fraction is allowed. Default 3. */
  epochs?: number | undefined
  /** Optimizer steps after which the run ends, even inside an epoch. Without `epochs`, passes follow until it is reached. */
  maxSteps?: number | undefined
  /** Conversations per optimizer step. Default 16. Excludes `batchTokens`. */
  batchSize?: number | undefined
  /** Tokens per optimizer step; whole conversations fill it. Excludes `batchSize`. */
  batchTokens?: number | undefined
  /** Tokens that go through forward and backward at once. Memory only: the update does not depend on it. Default 8192. */
  microBatchTokens?: number | undefined
  /** New order in every epoch. Default true. */
  shuffle?: boolean | undefined
  /** Of the order and of random weights; an integer from 0. Default 42. */
  seed?: number | undefined

  /** Peak learning rate. Default 2e-5. */
  learningRate?: number | undefined
  /** Course of the learning rate after warmup. Default 'cosine'. */
  schedule?: 'cosine' | 'linear' | 'constant' | undefined
  /** Share of the steps in which the rate rises from 0, 0 to 1. Default 0.03. Excludes `warmupSteps`. */
  warmupRatio?: number | undefined
  /** Steps in which the rate rises from 0. Excludes `warmupRatio`. */
  warmupSteps?: number | undefined
  /** Rate at which 'cosine' and 'linear' end. Default 0. */
  minLearningRate?: number | undefined

  /**
   * 'adamw' (decoupled weight decay, arXiv 1711.05101); 'adamw-8bit' (its moments in 8 bits as in bitsandbytes, arXiv
   * 2110.02861; those of embeddings and of tensors under 4096 numbers stay float32); 'lion' (arXiv 2302.06675); 'adafactor'
   * (arXiv 1804.04235, with the learning rate given); 'muon' (Newton-Schulz, for the matrices of the layers, its update scaled
   * to the size of AdamW's as in arXiv 2502.16982; AdamW for embeddings, head and vectors); 'sgd'. Default 'adamw'.
   */
  optimizer?: OptimizerName | undefined
  /** Decay rates of the moments of AdamW and Lion, 0 to below 1. Default [0.9, 0.999], of Lion [0.9, 0.99]. */
  betas?: [number, number] | undefined
  /** AdamW's term in the denominator. Default 1e-8. */
  epsilon?: number | undefined
  /** Of SGD and Muon, 0 to below 1. Default 0, of Muon 0.95. */
  momentum?: number | undefined
  /** Decay of matrices and embeddings; norms and biases have none. Default 0. */
  weightDecay?: number | undefined
  /** Global L2 norm to which gradients are clipped; 0 = no clipping. Default 1. */
  maxGradNorm?: number | undefined

  /**
   * Tensors that train, by pattern over their names in the checkpoint: whole components such as 'q_proj' or 'layers.0', with
   * `*`, `?` and `{a,b}`, or '/regular expression/'; 'new-tokens' for the rows of `addTokens`. Default: all. The others stay as they are and take neither gradient
   * nor optimizer memory.
   */
  train?: string | string[] | undefined
  /** Tensors that do not train, by pattern, also of those that `train` matches. Default: none. */
  freeze?: string | string[] | undefined
  /**
   * Special tokens that the tokenizer does not have yet, such as '<|im_start|>'. They take the ids behind its last one; their
   * rows of embedding and head start as the mean of the others. `train: 'new-tokens'` trains these rows alone. Default: none.
   */
  addTokens?: string | string[] | undefined
  /** Learning rates and weight decay of their own, by pattern; the first group that matches a tensor has it. Default: none. */
  parameterGroups?: ParameterGroupOptions[] | undefined

  /**
   * Trains a low-rank adapter beside frozen weights (LoRA, arXiv 2106.09685) and writes it in PEFT's format. Where `model`
   * is such an adapter already, it is trained on. Default: none.
   */
  adapter?: LoraOptions | undefined
  /**
   * Keeps the frozen matrices of the layers in 4 bits and trains the adapter beside them (QLoRA, arXiv 2305.14314);
   * embedding, head, norms and biases stay as they are. Only with an adapter. Default: none.
   */
  quantization?: 'nf4' | undefined
  /** Quantises the scales of the quantised blocks too: 4.13 bits per weight instead of 4.5. Default true. */
  doubleQuantization?: boolean | undefined

  /** Of weights and activations; master weights and optimizer state are float32. Default 'bfloat16' where the device is fast at it. */
  precision?: 'float32' | 'bfloat16' | undefined
  /** Default 'auto': the fastest that is there. */
  device?: 'auto' | 'cuda' | 'cpu' | 'reference' | undefined
  /** CPU threads. Default: every core this process may use. */
  threads?: number | undefined
  /** Recompute activations in the backward pass: less memory, about a third more time. Default false. */
  recompute?: boolean | undefined

  /** How often to evaluate: a number of steps, or '10m' (also 's', 'h'), '1epoch', '0.5epoch'. Default '1epoch'. */
  evalEvery?: number | string | undefined
  /** Prompts that are completed while the run trains, or these with how. Needs a key/value cache. Default none. */
  samples?: SampleOptions | SampleOptions['prompts'] | undefined
  /** Type of the exported weights. Default: the source checkpoint's; float32 for random weights. */
  outputDtype?: 'float32' | 'float16' | 'bfloat16' | undefined
}

export interface LoraOptions {
  type: 'lora'
  /** Rank of the update B · A. Default 16. */
  rank?: number | undefined
  /** The update is multiplied by alpha / rank. Default: the rank, for a factor of 1 as PEFT's own defaults have it. */
  alpha?: number | undefined
  /** Share of the adapters' inputs that a step drops, 0 to below 1. Default 0. */
  dropout?: number | undefined
  /**
   * Projections that get an adapter: 'all-linear' is all of attention and MLP, never the head; a list of module names or
   * their endings, such as ['q_proj', 'v_proj']; or one regular expression for whole names. Default 'all-linear'.
   */
  targets?: string | string[] | undefined
  /** Ranks of their own, by a regular expression for the end of the module's name; the first that fits counts. */
  rankPattern?: Record<string, number> | undefined
  /** Alphas, in the same way. */
  alphaPattern?: Record<string, number> | undefined
  /** Factor alpha / √rank (rsLoRA, arXiv 2312.03732). Default false. */
  rslora?: boolean | undefined
  /** With magnitudes (DoRA, arXiv 2402.09353). Default false. */
  dora?: boolean | undefined
  /** B learns so many times as fast as A (LoRA+, arXiv 2402.12354). Default 1. */
  loraPlusRatio?: number | undefined
  /**
   * 'default': A uniform, B zero, as in PEFT; 'pissa': from the largest singular values of the weights (arXiv 2404.02948),
   * saved as an adapter of twice the rank to the weights as they were. Default 'default'.
   */
  init?: 'default' | 'pissa' | undefined
}

export interface ResolvedSamples extends SamplingOptions {
  prompts: (string | Message[])[]
  every: Every
  maxNewTokens: number
  stop: string[]
  /** The run's, where none is given. */
  seed: number
}

/** A data file or glob with an absolute path, or a dataset of the hub. */
export interface ResolvedDataFile {
  path: string
  format: DataFormat
  proportion: number
}

export type ResolvedModel =
  /** An absolute path, or a name of the hub. */
  { folder: string } | { config: string | Record<string, unknown>; tokenizer: string; init: 'random' }

/**
 * Options with every default in its place and absolute paths. What depends on the model, the data or the device stays
 * open: `maxLength`, `outputDtype` and `precision: 'auto'`.
 */
export interface ResolvedOptions extends ResolvedRegularisation {
  /** The preset and what it sets; absent without one. */
  preset?: UsedPreset
  model: ResolvedModel
  output: string
  data: {
    train: ResolvedDataFile[]
    /** Empty: no evaluation file. */
    eval: ResolvedDataFile[]
    evalFraction: number
    onBadRow: 'error' | 'skip'
  }
  /** 'model', a built-in name, or an absolute path. */
  chatTemplate: string
  templateVariables: Record<string, unknown>
  historyRewrite: 'split' | 'error'
  controlTokensInText: 'error' | 'keep' | 'escape'
  trainOn: 'assistant' | 'last' | 'all'
  promptLossWeight: number
  maxLength?: number
  onTooLong: TooLongPolicy
  /** Absolute folder of prepared data, or false. */
  cache: string | false
  /** Infinity where only `maxSteps` was given. */
  epochs: number
  maxSteps?: number
  /** What fills one optimizer step. */
  batch: { conversations: number } | { tokens: number }
  microBatchTokens: number
  shuffle: boolean
  seed: number
  learningRate: number
  schedule: 'cosine' | 'linear' | 'constant'
  warmup: { ratio: number } | { steps: number }
  minLearningRate: number
  optimizer: OptimizerName
  betas: [number, number]
  epsilon: number
  momentum: number
  weightDecay: number
  /** Infinity: no clipping. */
  maxGradNorm: number
  addTokens: string[]
  /** Patterns; empty: everything. */
  train: string[]
  freeze: string[]
  parameterGroups: ParameterGroupOptions[]
  /** As given: what is left out depends on whether the model is an adapter already. */
  adapter?: LoraOptions
  quantization?: 'nf4'
  doubleQuantization: boolean
  precision: 'auto' | 'float32' | 'bfloat16'
  device: 'auto' | 'cuda' | 'cpu' | 'reference'
  /** 0: every core this process may use. */
  threads: number
  recompute: boolean
  evalEvery: Every
  samples?: ResolvedSamples
  outputDtype?: 'float32' | 'float16' | 'bfloat16'
}

/**
 * Checks `input` strictly and fills in the defaults. `baseFolder` is where relative paths start.
 *
 * @throws TunesmithError `ERR_UNKNOWN_OPTION` when a key does not exist (among other problems, if any), else
 * `ERR_INVALID_OPTION`. One error lists every problem found.
 */
export function parseOptions(input: unknown, baseFolder: string = process.cwd()): ResolvedOptions {
  const { options: whole, used } = isRecord(input) ? withPreset(input) : { options: input, used: undefined }
  const parsed = schema.safeParse(whole)
  const problems = [...(parsed.success ? [] : schemaProblems(parsed.error.issues, whole)), ...conflicts(whole)]
  if (!parsed.success || problems.length > 0) throw optionError(problems)
  const options = absolutePaths(parsed.data, resolve(baseFolder)) as typeof parsed.data
  const { model, output, data, maxLength, maxSteps, outputDtype } = options
  const format = data.format ?? 'auto'
  return {
    ...(used && { preset: used }),
    model: typeof model === 'string' ? { folder: model } : model,
    output,
    data: {
      train: dataFiles(data.train, format),
      eval: data.eval === undefined ? [] : dataFiles(data.eval, format),
      evalFraction: data.evalFraction ?? 0,
      onBadRow: data.onBadRow ?? 'error',
    },
    chatTemplate: options.chatTemplate ?? 'model',
    templateVariables: options.templateVariables ?? {},
    historyRewrite: options.historyRewrite ?? 'split',
    controlTokensInText: options.controlTokensInText ?? 'error',
    trainOn: options.trainOn ?? 'assistant',
    promptLossWeight: options.promptLossWeight ?? 0,
    ...(maxLength !== undefined && { maxLength }),
    onTooLong: options.onTooLong ?? 'drop',
    cache: cacheFolder(options.cache ?? true),
    epochs: options.epochs ?? (maxSteps === undefined ? 3 : Number.POSITIVE_INFINITY),
    ...(maxSteps !== undefined && { maxSteps }),
    batch:
      options.batchTokens === undefined ? { conversations: options.batchSize ?? 16 } : { tokens: options.batchTokens },
    microBatchTokens: options.microBatchTokens ?? 8192,
    shuffle: options.shuffle ?? true,
    seed: options.seed ?? 42,
    learningRate: options.learningRate ?? 2e-5,
    schedule: options.schedule ?? 'cosine',
    warmup: options.warmupSteps === undefined ? { ratio: options.warmupRatio ?? 0.03 } : { steps: options.warmupSteps },
    minLearningRate: options.minLearningRate ?? 0,
    optimizer: options.optimizer ?? 'adamw',
    betas: options.betas ?? (options.optimizer === 'lion' ? [0.9, 0.99] : [0.9, 0.999]),
    epsilon: options.epsilon ?? 1e-8,
    momentum: options.momentum ?? (options.optimizer === 'muon' ? 0.95 : 0),
    weightDecay: options.weightDecay ?? 0,
    maxGradNorm: options.maxGradNorm === 0 ? Number.POSITIVE_INFINITY : (options.maxGradNorm ?? 1),
    ...resolveRegularisation(options),
    addTokens: [options.addTokens ?? []].flat(),
    train: [options.train ?? []].flat(),
    freeze: [options.freeze ?? []].flat(),
    parameterGroups: options.parameterGroups ?? [],
    ...(options.adapter !== undefined && { adapter: options.adapter }),
    ...(options.quantization !== undefined && { quantization: options.quantization }),
    doubleQuantization: options.doubleQuantization ?? true,
    precision: options.precision ?? 'auto',
    device: options.device ?? 'auto',
    threads: options.threads ?? 0,
    recompute: options.recompute ?? false,
    evalEvery: parseEvery(options.evalEvery ?? '1epoch')!,
    ...(options.samples !== undefined && { samples: samplesOf(options.samples, options.seed ?? 42) }),
    ...(outputDtype !== undefined && { outputDtype }),
  }
}

function samplesOf(input: NonNullable<z.output<typeof schema>['samples']>, seed: number): ResolvedSamples {
  const { prompts, every, maxNewTokens, stop, ...given } = Array.isArray(input) ? { prompts: input } : input
  const sampling = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
  return {
    seed,
    ...sampling,
    prompts: prompts as ResolvedSamples['prompts'],
    every: parseEvery(every ?? '1epoch')!,
    maxNewTokens: maxNewTokens ?? 128,
    stop: [stop ?? []].flat(),
  }
}

function cacheFolder(cache: boolean | string): string | false {
  return cache === true ? defaultCacheFolder() : cache
}

type FileInput = string | { path: string; format?: DataFormat | undefined; proportion?: number | undefined }

function dataFiles(input: FileInput | FileInput[], format: DataFormat): ResolvedDataFile[] {
  return [input].flat().map((file) => {
    const given = typeof file === 'string' ? { path: file } : file
    return { path: given.path, format: given.format ?? format, proportion: given.proportion ?? 1 }
  })
}
