/** A preview as JSON lines. */
import type { Preview } from './preview.ts'
import { tokenText, weightText } from './text.ts'

/**
 * One line per example: `ids`, `weights`, `source` and `tokens` (their text, as a preview shows it); `piece` and `pieces`
 * where a conversation had to be split.
 */
export function jsonPreview({ examples }: Preview): string {
  return examples
    .map(({ source, piece, pieces, tokens }) => {
      const line = {
        ids: tokens.map(({ id }) => id),
        weights: tokens.map(({ weight }) => Number(weightText(weight))),
        source,
        ...(pieces > 1 && { piece, pieces }),
        tokens: tokens.map(({ bytes }) => tokenText(bytes)),
      }
      return `${JSON.stringify(line)}\n`
    })
    .join('')
}
