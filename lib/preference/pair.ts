/** A pair to prefer from: what both answers answer, the better and the worse one. As TRL's preference formats have it. */
import { isDeepStrictEqual } from 'node:util'
import { messagesOrText } from '../data/cells.ts'
import type { Message, Source } from '../data/conversation.ts'
import { readTools, requireAssistant, turns } from '../data/layouts/message.ts'
import { checkText, isObject, type Json, kind, RowProblem } from '../data/rows.ts'

/** Columns that scoring adds. */
export const COLUMNS = [
  'ref_chosen_logps',
  'ref_rejected_logps',
  'ref_chosen_per_token_logps',
  'ref_rejected_per_token_logps',
] as const

export interface PreferencePair {
  prompt: string | Message[]
  /** Continues the prompt; text where the prompt is text. */
  chosen: string | Message[]
  rejected: string | Message[]
  tools: Json[] | undefined
  /** The row as its file holds it. */
  row: Json
  source: Source
}

/** How the rows of a dataset are laid out. TRL tells it from the first row, so all must be alike. */
export interface PairLayout {
  /** Has `prompt`; without it the prompt is what both answers begin with. */
  explicit: boolean
  /** Lists of messages, not texts. */
  messages: boolean
}

/**
 * The pair in a row.
 *
 * @param textCells lists may be written as JSON text, as tables have them
 * @param first layout of the first row; undefined for that row itself
 * @throws RowProblem
 */
export function readPair(
  value: unknown,
  source: Source,
  { textCells, first }: { textCells: boolean; first: PairLayout | undefined },
): { pair: PreferencePair; layout: PairLayout } {
  if (!isObject(value)) throw new RowProblem('', `expected an object, found ${kind(value)}`)
  for (const key of ['chosen', 'rejected'])
    if (!(key in value)) {
      const keys = Object.keys(value).slice(0, 6)
      throw new RowProblem(
        key,
        `is missing: a pair has "chosen" and "rejected", and "prompt" or a beginning in common. Found ${keys.map((name) => JSON.stringify(name)).join(', ')}`,
      )
    }
  for (const key of COLUMNS) if (key in value) throw new RowProblem(key, 'is there already; give the file without it')
  if (value.chat_template_kwargs !== undefined && value.chat_template_kwargs !== null)
    throw new RowProblem(
      'chat_template_kwargs',
      'is not read; render with a chatTemplate that has these values as defaults',
    )
  const cell = (key: string) => (textCells ? messagesOrText(value[key]) : value[key])
  const explicit = value.prompt !== undefined && value.prompt !== null
  const fields = explicit ? ['prompt', 'chosen', 'rejected'] : ['chosen', 'rejected']
  const layout = { explicit, messages: Array.isArray(cell('chosen')) }
  if (first && first.explicit !== explicit)
    throw new RowProblem(
      'prompt',
      `is ${explicit ? 'there' : 'missing'}, unlike in the first row; all rows must be laid out alike`,
    )
  if (first && first.messages !== layout.messages)
    throw new RowProblem(
      'chosen',
      `is ${kind(cell('chosen'))}, unlike in the first row; all rows must be laid out alike`,
    )
  const read = Object.fromEntries(fields.map((key) => [key, readSide(cell(key), key, layout.messages)]))
  if (isDeepStrictEqual(read.chosen, read.rejected))
    throw new RowProblem('rejected', 'equals "chosen", so there is nothing to prefer; remove the row')
  const parts = explicit ? (read as Parts) : extractPrompt(read.chosen!, read.rejected!)
  if (layout.messages) for (const key of ['chosen', 'rejected'] as const) requireAssistant(parts[key] as Message[], key)
  return { pair: { ...parts, tools: readTools(value.tools), row: value, source }, layout }
}

type Side = string | Message[]
type Parts = Record<'prompt' | 'chosen' | 'rejected', Side>

function readSide(value: unknown, key: string, messages: boolean): Side {
  if (messages) return turns(value, key)
  if (typeof value !== 'string') throw new RowProblem(key, `expected text, as "chosen" is, found ${kind(value)}`)
  if (value.trim() === '') throw new RowProblem(key, 'is empty; remove the row')
  checkText(value, key)
  return value
}

/**
 * TRL's extract_prompt, corner cases included: the longest common beginning, a space at its end left to the answers, and
 * where one answer begins with the whole other one, the last thing they share left to the answers too.
 */
function extractPrompt(chosen: Side, rejected: Side): Parts {
  // Characters as Python counts them.
  const [a, b] = [chosen, rejected].map((side): readonly unknown[] =>
    typeof side === 'string' ? Array.from(side) : side,
  )
  const shorter = Math.min(a!.length, b!.length)
  let end = shorter - 1
  for (let index = 0; index < shorter; index++) {
    if (isDeepStrictEqual(a![index], b![index])) continue
    end = index > 0 && a![index - 1] === ' ' ? index - 1 : index
    break
  }
  if (end === 0)
    throw new RowProblem('rejected', 'begins unlike "chosen", and there is no "prompt": nothing says what both answer')
  const cut = (side: Side, list: readonly unknown[], from: number, to?: number): Side =>
    typeof side === 'string' ? list.slice(from, to).join('') : side.slice(from, to)
  return { prompt: cut(chosen, a!, 0, end), chosen: cut(chosen, a!, end), rejected: cut(rejected, b!, end) }
}
