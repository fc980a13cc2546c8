/** Reference log-probabilities for preference training: what TRL's DPOTrainer computes before its first step. */
import { checkGenerationPrompt } from '../chat/generation-prompt.ts'
import type { Checkpoint } from '../checkpoint/open.ts'
import { place } from '../data/source.ts'
import { TunesmithError, type Warning } from '../errors.ts'
import { openInference, startEngine } from '../generate/inference.ts'
import type { BackendName } from '../native/addon.ts'
import { asTunesmithError } from '../native/error.ts'
import { checkLogProbOptions } from './options.ts'
import { OutputFile, type ScoredRow } from './output.ts'
import type { PreferencePair } from './pair.ts'
import { readPairs } from './read.ts'
import { type PairLogProbs, scoreLimits, scorePairs } from './score.ts'
import { type TokenizedPair, tokenizePairs } from './tokenize.ts'

export interface LogProbOptions {
  /** A Hugging Face folder, a model of the hub, or an adapter in PEFT's format. */
  model: string
  /**
   * Data files (path or glob; JSONL, JSON, CSV, Parquet), or rows: `chosen` and `rejected`, both texts or both lists of
   * messages, with `prompt`, or without where both begin with it.
   */
  pairs: string | readonly (string | object)[]
  /** A .jsonl or .parquet file: the rows with `ref_chosen_logps`, `ref_rejected_logps` and both per token. Default: none is written. */
  output?: string | undefined
  /** Replaces `output` where it exists. Default false. */
  overwrite?: boolean | undefined
  /** Default 'model'. */
  chatTemplate?: string | undefined
  /**
   * Tokens of prompt and answer together; an answer is cut where they end, as TRL's `max_length` (1024 by default) does.
   * Default: the model's context, and what is longer is an error.
   */
  maxLength?: number | undefined
  /** Default 'auto': the fastest that is there. */
  device?: 'auto' | BackendName | undefined
  /** Default 'float32', as TRL computes unless told otherwise. */
  precision?: 'auto' | 'float32' | 'bfloat16' | undefined
  /** CPU threads. Default: every core this process may use. */
  threads?: number | undefined
  /** Tokens that go through the model at once: memory only. Default 8192. */
  microBatchTokens?: number | undefined
  signal?: AbortSignal | undefined
  /** Pairs scored, of how many. */
  onProgress?: ((done: number, total: number) => void) | undefined
}

export interface LogProbResult {
  /** Absolute path; absent where nothing was written. */
  output?: string
  /** Of each pair, in their order. */
  pairs: PairLogProbs[]
  /** Means over the pairs. */
  chosen: number
  rejected: number
  /** Share of the pairs whose chosen answer is the more likely one. */
  chosenMoreLikely: number
  /** Answers that were cut at `maxLength`. */
  cut: number
  warnings: Warning[]
}

/** Rows tokenised, and rows written, at once. */
const CHUNK = 256

/**
 * Log-probabilities of the chosen and the rejected answer of each pair under a model; prompt tokens are not counted.
 *
 * @throws TunesmithError `ERR_UNKNOWN_OPTION`, `ERR_INVALID_OPTION`, `ERR_BAD_ROW` (empty or equal answers among others),
 * `ERR_TOO_LONG`, `ERR_OUTPUT_EXISTS`, `ERR_OUTPUT_NOT_WRITABLE`, `ERR_NON_FINITE_LOSS`; errors of reading data, model,
 * tokenizer and template; the signal's reason. Nothing is left behind then.
 */
export async function logProbabilities(options: LogProbOptions): Promise<LogProbResult> {
  checkLogProbOptions(options)
  const { signal } = options
  signal?.throwIfAborted()
  const file =
    options.output === undefined ? undefined : await OutputFile.open(options.output, options.overwrite ?? false)
  try {
    const result = await run(options, file)
    await file?.publish()
    return { ...(file && { output: file.path }), ...result }
  } catch (error) {
    signal?.throwIfAborted()
    throw asTunesmithError(error)
  } finally {
    await file?.discard()
  }
}

async function run(options: LogProbOptions, file: OutputFile | undefined): Promise<Omit<LogProbResult, 'output'>> {
  const { microBatchTokens = 8192, threads = 0, signal, onProgress } = options
  const open = await openInference(options.model, {
    device: options.device ?? 'auto',
    precision: options.precision ?? 'float32',
    threads,
    chatTemplate: options.chatTemplate ?? 'model',
  })
  const { tokenizer, template, fallback } = open
  const pairs = await readPairs(options.pairs)
  const chat = typeof pairs[0]!.prompt !== 'string'
  // Without one its text would count as the answer's.
  if (chat) checkGenerationPrompt(template)
  const settings = {
    tokenizer,
    template,
    maxLength: maxLengthOf(options, open.model.checkpoint),
    cuts: options.maxLength !== undefined,
  }
  const tokenized: TokenizedPair[] = []
  for (let start = 0; start < pairs.length; start += CHUNK) {
    signal?.throwIfAborted()
    tokenized.push(...(await tokenizePairs(pairs.slice(start, start + CHUNK), settings)))
  }
  const longest = tokenized.reduce((most, { chosen, rejected }) => Math.max(most, chosen.length, rejected.length), 0)
  const sizes = { ...scoreLimits(tokenized, microBatchTokens), maxPositions: longest, cacheTokens: 0 }
  const { engine, warnings } = await startEngine(open, sizes, signal)
  const cancel = () => engine.cancel()
  signal?.addEventListener('abort', cancel, { once: true })
  try {
    warnings.push(...boundaryWarnings(pairs, tokenized))
    if (chat && fallback !== undefined) warnings.push({ code: 'WARN_TEMPLATE_FALLBACK', message: fallback })
    const scores: PairLogProbs[] = []
    for await (const score of scorePairs(engine, tokenized, microBatchTokens)) {
      checkFinite(score, pairs[scores.length]!)
      scores.push(score)
      if (scores.length % CHUNK !== 0 && scores.length !== pairs.length) continue
      signal?.throwIfAborted()
      const start = Math.floor((scores.length - 1) / CHUNK) * CHUNK
      await file?.write(scores.slice(start).map((score, index) => scoredRow(pairs[start + index]!, score)))
      onProgress?.(scores.length, pairs.length)
    }
    return { ...means(scores), cut: tokenized.reduce((sum, { cut }) => sum + cut, 0), pairs: scores, warnings }
  } finally {
    signal?.removeEventListener('abort', cancel)
    engine.close()
  }
}

function maxLengthOf({ maxLength }: LogProbOptions, { spec }: Checkpoint): number {
  if (maxLength === undefined || maxLength <= spec.maxPositions) return maxLength ?? spec.maxPositions
  throw new TunesmithError(
    'ERR_INVALID_OPTION',
    `option maxLength is ${maxLength}, but the model's context is ${spec.maxPositions} tokens`,
  )
}

function boundaryWarnings(pairs: readonly PreferencePair[], tokenized: readonly TokenizedPair[]): Warning[] {
  const first = tokenized.findIndex(({ straddling }) => straddling > 0)
  if (first < 0) return []
  const count = tokenized.reduce((sum, { straddling }) => sum + straddling, 0)
  const message =
    `${count} of the answers ${count === 1 ? 'changes' : 'change'} how the prompt is encoded, first in ${place(pairs[first]!.source)}: a token reaches over the ` +
    'boundary. They are counted as TRL counts them, from as many tokens as the prompt has alone.'
  return [{ code: 'WARN_PROMPT_BOUNDARY', message }]
}

function checkFinite({ chosen, rejected }: PairLogProbs, { source }: PreferencePair): void {
  if (Number.isFinite(chosen) && Number.isFinite(rejected)) return
  throw new TunesmithError(
    'ERR_NON_FINITE_LOSS',
    `${place(source)}: the log-probabilities are ${chosen} and ${rejected}: the weights have diverged, or are damaged`,
  )
}

function scoredRow({ row }: PreferencePair, score: PairLogProbs): ScoredRow {
  return {
    row,
    columns: {
      ref_chosen_logps: score.chosen,
      ref_rejected_logps: score.rejected,
      ref_chosen_per_token_logps: score.chosenTokens,
      ref_rejected_per_token_logps: score.rejectedTokens,
    },
  }
}

function means(scores: readonly PairLogProbs[]): Pick<LogProbResult, 'chosen' | 'rejected' | 'chosenMoreLikely'> {
  const mean = (of: (score: PairLogProbs) => number) =>
    scores.reduce((sum, score) => sum + of(score), 0) / scores.length
  return {
    chosen: mean(({ chosen }) => chosen),
    rejected: mean(({ rejected }) => rejected),
    chosenMoreLikely: mean(({ chosen, rejected }) => Number(chosen > rejected)),
  }
}
