/** A preview as JSON lines. */
import { verdictOf } from '../chat/doctor.ts'
import type { Preview, PreviewToken } from './preview.ts'
import { weightText } from './text.ts'

/**
 * One line per example: `ids`, `weights`, `source`, `tokens` (their text, as a preview shows it) and `turns`, the tokens
 * [start, end) of each with its role; `piece` and `pieces` where a conversation had to be split. The last line is
 * `{ "summary": ... }`: what stands under a preview.
 */
export function jsonPreview({ examples, roles, template, doctor, formats, counts, warnings }: Preview): string {
  const lines: object[] = examples.map(({ source, piece, pieces, tokens }) => ({
    ids: tokens.map(({ id }) => id),
    weights: tokens.map(({ weight }) => Number(weightText(weight))),
    source,
    ...(pieces > 1 && { piece, pieces }),
    tokens: tokens.map(({ text }) => text),
    turns: turnRanges(tokens),
  }))
  const findings = { verdict: verdictOf(doctor), findings: doctor }
  lines.push({ summary: { roles, template, doctor: findings, formats, counts, warnings } })
  return lines.map((line) => `${JSON.stringify(line)}\n`).join('')
}

function turnRanges(tokens: readonly PreviewToken[]): { role: string; start: number; end: number }[] {
  const ranges: { role: string; start: number; end: number }[] = []
  let turn = -1
  for (const [index, token] of tokens.entries()) {
    if (token.turn.index !== turn) ranges.push({ role: token.turn.role, start: index, end: index })
    ranges.at(-1)!.end = index + 1
    turn = token.turn.index
  }
  return ranges
}
