/** Rows on their way to examples, for those who look on: the preview and the template doctor. */
import { type Conversation, type Example, isConversation, type Row } from '../data/conversation.ts'
import type { Encoding } from './encoding.ts'
import type { Truncated } from './truncate.ts'
import type { WeightedText, WeightedTokens } from './weights.ts'

/** A row with what its examples were made of. */
export interface SeenRow<R extends Row = Row> {
  row: R
  /** Several where the template rewrites history. */
  pieces: readonly SeenPiece[]
}

export type SeenConversation = SeenRow<Conversation>

export function isSeenConversation(seen: SeenRow): seen is SeenConversation {
  return isConversation(seen.row)
}

/** An example with what it was made of. */
export interface SeenPiece {
  example: Example
  /** Absent where the row came tokenised. */
  text?: RenderedText
  /** Before onTooLong cut it. */
  whole: WeightedTokens
  /** What the example holds. */
  kept: WeightedTokens
  /** Tokens of `whole` before those that are kept; a bos that is kept stands before them. */
  lostBefore: number
}

export interface RenderedText {
  weighted: WeightedText
  encoding: Encoding
}

/** A text of a row that became an example: which one, and what of it. */
export interface KeptText {
  index: number
  tokens: WeightedTokens | Truncated
  example: Example
}

/** What became of a row's `texts`, of which `kept` are examples. */
export function seenPieces(
  kept: readonly KeptText[],
  weighed: readonly WeightedTokens[],
  texts: readonly WeightedText[],
  encodings: readonly Encoding[],
): SeenPiece[] {
  return kept.map(({ index, tokens, example }) => {
    const weighted = texts[index]
    return {
      example,
      ...(weighted && { text: { weighted, encoding: encodings[index]! } }),
      whole: weighed[index]!,
      kept: tokens,
      lostBefore: 'lostBefore' in tokens ? tokens.lostBefore : 0,
    }
  })
}
