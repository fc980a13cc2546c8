/**
 * Whose turn each token belongs to. Training needs the spans of assistant turns only; for a person the others are named
 * as well. Nothing depends on it but what a preview shows.
 */
import type { Encoding } from '../chat/encoding.ts'
import type { SeenPiece } from '../chat/seen.ts'
import type { ChatTemplate } from '../chat/template.ts'
import { isConversation, type Row, type TextRow } from '../data/conversation.ts'
import { type Region, regionsOf } from './regions.ts'

export interface Turn {
  /** 'user', 'assistant', ...; 'tools' or 'template' before the first message; 'text', 'prompt', 'completion', 'tokens'. */
  role: string
  /** Counts the turns of an example from 0: neighbours of equal role are told apart. */
  index: number
}

/** One turn per token of the example. */
export function rolesOfTokens(
  row: Row,
  { text, whole, kept, lostBefore }: SeenPiece,
  template: ChatTemplate | undefined,
): Turn[] {
  if (!text) return new Array(kept.ids.length).fill({ role: 'tokens', index: 0 })
  const { weighted, encoding } = text
  const regions = isConversation(row) ? regionsOf(weighted.text, row, template!) : regionsOfText(row as TextRow)
  const turns = regions.map(({ role }, index) => ({ role, index }))
  const all: Turn[] = [
    ...new Array(weighted.prefix.length).fill(turns[0]!),
    ...turnsOfTokens(encoding, regions).map((region) => turns[region]!),
    ...new Array(weighted.suffix.length).fill(turns.at(-1)!),
  ]
  const left = all.slice(lostBefore, lostBefore + kept.ids.length)
  // A bos that onTooLong keeps stands where the first of the kept tokens was.
  if (lostBefore > 0 && kept.ids[0] === whole.ids[0]) left[0] = all[0]!
  return left
}

/** A token belongs to the region in which it ends: what straddles a border is the first of the new turn. */
function turnsOfTokens(encoding: Encoding, regions: readonly Region[]): number[] {
  const turns: number[] = []
  let at = 0
  for (let token = 0; token < encoding.length; token++) {
    const [, end] = encoding.span(token)
    while (at < regions.length - 1 && end > regions[at]!.end) at++
    turns.push(at)
  }
  return turns
}

function regionsOfText({ text, promptLength }: TextRow): Region[] {
  if (promptLength === undefined) return [{ start: 0, end: text.length, role: 'text' }]
  const completion = { start: promptLength, end: text.length, role: 'completion' }
  return promptLength === 0 ? [completion] : [{ start: 0, end: promptLength, role: 'prompt' }, completion]
}
