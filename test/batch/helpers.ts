import fc from 'fast-check'
import { type ExampleSet, exampleSet } from '../../lib/batch/example-set.ts'
import type { DataCounts, PrepareOptions } from '../../lib/batch/prepared.ts'
import type { Example } from '../../lib/data/conversation.ts'

/** An example whose ids are consecutive from `first`, so that every token tells where it came from. */
export function example(first: number, length: number, weights?: readonly number[]): Example {
  return {
    ids: Int32Array.from({ length }, (_, i) => first + i),
    weights: Float32Array.from({ length }, (_, i) => weights?.[i] ?? 1),
    source: { file: 'train.jsonl', line: first },
  }
}

/** Conversations of 1 to 3 pieces with random lengths and weights of 0, 0.5 and 1; every example supervises something. */
export const exampleSets: fc.Arbitrary<ExampleSet> = fc
  .array(
    fc.array(
      fc
        .integer({ min: 2, max: 40 })
        .chain((length) =>
          fc
            .array(fc.constantFrom(0, 0.5, 1), { minLength: length, maxLength: length })
            .map((weights) => ({ length, weights: weights.with(length - 1, 1) })),
        ),
      { minLength: 1, maxLength: 3 },
    ),
    { minLength: 1, maxLength: 40 },
  )
  .map((conversations) => {
    let next = 1
    return exampleSet(
      conversations.map((pieces) =>
        pieces.map(({ length, weights }) => {
          const first = next
          next += 1000
          return example(first, length, weights)
        }),
      ),
    )
  })

/** What a preparation counts where nothing was lost. */
export const nothingLost = {
  dropped: [],
  droppedTokens: 0,
  droppedSupervisedTokens: 0,
  truncated: 0,
  truncatedTokens: 0,
  truncatedSupervisedTokens: 0,
  unstopped: 0,
  split: 0,
  straddling: 0,
} satisfies Partial<DataCounts>

const DEFAULTS: Omit<PrepareOptions, 'data'> = {
  chatTemplate: 'model',
  historyRewrite: 'split',
  controlTokensInText: 'error',
  trainOn: 'assistant',
  promptLossWeight: 0,
  maxLength: 100,
  onTooLong: 'drop',
  seed: 42,
}

/** Options of a preparation that reads `train`; those of `data` may be given beside the others. */
export function prepareOptions(
  train: string | string[],
  changes: Partial<PrepareOptions> & Partial<PrepareOptions['data']> = {},
): PrepareOptions {
  const { eval: evaluation = [], evalFraction = 0, onBadRow = 'error', ...rest } = changes
  const entries = (paths: string | string[]) => [paths].flat().map((path) => ({ path, format: 'auto' as const }))
  return { ...DEFAULTS, data: { train: entries(train), eval: evaluation, evalFraction, onBadRow }, ...rest }
}
