/** What became of the rows, for `plan` and `preview`. */
import type { DataCounts } from '../batch/prepared.ts'
import { MALFORMED } from '../data/bad-rows.ts'
import { placeGroups, placeList } from '../data/places.ts'
import { count, plural } from './format.ts'

/** Rows of a table: what was dropped, cut and split, with the tokens that this took or gave. */
export function dataLines(data: Omit<DataCounts, 'used' | 'evaluated'>): [string, string][] {
  const lines: [string, string][] = []
  for (const { reason, count: rows, examples } of data.dropped) {
    if (reason === MALFORMED) {
      lines.push(['dropped', `${count(rows)}: ${reason}`])
      for (const group of placeGroups(examples)) lines.push(['', group])
    } else {
      lines.push(['dropped', `${count(rows)}: ${reason} (${placeList(examples, rows)})`])
    }
  }
  if (data.droppedTokens > 0) lines.push(['', lost(data.droppedTokens, data.droppedSupervisedTokens)])
  if (data.truncated > 0) {
    const cut = `${plural(data.truncated, 'row')}: ${lost(data.truncatedTokens, data.truncatedSupervisedTokens)}`
    const stops = data.unstopped > 0 ? `; ${plural(data.unstopped, 'trained turn')} without a stop token now` : ''
    lines.push(['cut', cut + stops])
  }
  if (data.split > 0) {
    const why = 'the chat template renders earlier turns differently once others follow: one example per context'
    lines.push(['split', `${plural(data.split, 'conversation')}, because ${why}`])
  }
  return lines
}

function lost(tokens: number, supervised: number): string {
  return `${plural(tokens, 'token')} lost, ${count(supervised)} of them with loss`
}
