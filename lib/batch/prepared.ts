/** What preparation is told and what it returns: the structures between the options of a run and its training data. */
import type { HistoryRewrite } from '../chat/spans.ts'
import type { ChatTemplate } from '../chat/template.ts'
import type { TrainOn } from '../chat/weights.ts'
import type { BadRowPolicy } from '../data/bad-rows.ts'
import type { DataEntry } from '../data/paths.ts'
import type { FileFormat } from '../data/read.ts'
import type { Warning } from '../errors.ts'
import type { ExampleSet } from './example-set.ts'

/** The options of a run that concern its data; ResolvedOptions with a `maxLength` is one. */
export interface PrepareOptions {
  data: {
    train: readonly DataEntry[]
    eval: readonly DataEntry[]
    evalFraction: number
    onBadRow: BadRowPolicy
  }
  chatTemplate: string
  templateVariables?: Record<string, unknown>
  historyRewrite: HistoryRewrite
  controlTokensInText: 'error' | 'keep' | 'escape'
  trainOn: TrainOn
  promptLossWeight: number
  /** Tokens per conversation. */
  maxLength: number
  onTooLong: TooLongPolicy
  seed: number
  /** Absolute folder in which results are kept; none are where this is absent or false. */
  cache?: string | false
}

export type TooLongPolicy = 'drop' | 'error' | 'truncate-turns' | 'truncate-left' | 'truncate-right'

export interface PrepareHooks {
  /** Told after each batch of rows. */
  onProgress?: (progress: PrepareProgress) => void
  /** Ends the pass with the signal's reason. */
  signal?: AbortSignal
}

export type Side = 'train' | 'eval'

export interface PrepareProgress {
  side: Side
  /** Rows read so far on this side. */
  rows: number
  tokens: number
  /** Nothing was prepared: an earlier run has. */
  cached?: true
}

export interface Prepared {
  train: ExampleSet
  eval?: ExampleSet
  /** Undefined where no row is a conversation. */
  template?: ChatTemplate
  counts: DataCounts
  /** As what each file was read, and why. */
  formats: FileFormat[]
  /** For `warning` events. */
  warnings: Warning[]
}

/** `rows = used + evaluated + Σ dropped[].count`, over both sides. */
export interface DataCounts {
  rows: number
  /** Conversations that train. */
  used: number
  evaluated: number
  dropped: DroppedRows[]
  /** Tokens lost with conversations over maxLength, and those of them that carry loss. */
  droppedTokens: number
  droppedSupervisedTokens: number
  /** Rows that were truncated; the tokens they lost, and those of them that carried loss. */
  truncated: number
  truncatedTokens: number
  truncatedSupervisedTokens: number
  /** Trained turns that lost their stop token to truncation. */
  unstopped: number
  /** Conversations that became several examples because the template rewrites history. */
  split: number
  /** Trained turns that share a token with the text around them. */
  straddling: number
}

export interface DroppedRows {
  /** In words, e.g. 'longer than maxLength (512 tokens)'. */
  reason: string
  count: number
  /** The first few, as `file:line`. */
  examples: string[]
}
