/** Cells of tables that hold JSON as text, where a JSON file holds the value itself. */
import type { Layout } from './layouts/layout.ts'
import { isObject, type Json, parseJson, RowProblem } from './rows.ts'

/**
 * A copy of `row` in which the texts of the layout's JSON keys are parsed; prompts and completions are, too, where they
 * spell a list of messages.
 *
 * @throws RowProblem where such a text is not JSON.
 */
export function parseCells(row: Json, layout: Layout): Json {
  const parsed = { ...row }
  for (const key of layout.jsonKeys) {
    const cell = row[key]
    if (typeof cell === 'string') parsed[key] = parseCell(cell, key)
  }
  if (layout.name !== 'prompt-completion') return parsed
  for (const key of ['prompt', 'completion']) parsed[key] = messagesOrText(row[key])
  return parsed
}

function parseCell(text: string, key: string): unknown {
  try {
    return parseJson(text, key)
  } catch (error) {
    // What pandas writes for a list of dicts.
    if (!(error instanceof RowProblem) || !/^\s*\[?\s*\{'/.test(text)) throw error
    throw new RowProblem(key, 'is written as Python and not as JSON; write the column with json.dumps')
  }
}

/** A cell that spells a list of messages as that list; another as it is. */
export function messagesOrText(cell: unknown): unknown {
  if (typeof cell !== 'string' || !/^\s*\[\s*\{/.test(cell)) return cell
  try {
    const value: unknown = JSON.parse(cell)
    return Array.isArray(value) && value.every((entry) => isObject(entry) && 'role' in entry) ? value : cell
  } catch {
    return cell
  }
}
