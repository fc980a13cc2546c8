/** The row layouts, and how the layout of a file is told from its first rows. */
import type { Row, Source } from '../conversation.ts'
import { isObject, type Json, kind, RowProblem } from '../rows.ts'
import { alpaca } from './alpaca.ts'
import type { Layout, LayoutName } from './layout.ts'
import { messages } from './messages.ts'
import { promptCompletion } from './prompt-completion.ts'
import { sharegpt } from './sharegpt.ts'
import { text } from './text.ts'
import { tokens } from './tokens.ts'

/** In the order in which they are looked for: a row with "messages" and "text" is messages. */
export const layouts: readonly Layout[] = [messages, sharegpt, promptCompletion, alpaca, tokens, text]

export function layoutNamed(name: LayoutName): Layout {
  return layouts.find((layout) => layout.name === name)!
}

/** The layout of one row; undefined where it shows none. */
export function layoutOf(row: unknown): Layout | undefined {
  return isObject(row) ? layouts.find((layout) => layout.evidence(row) !== undefined) : undefined
}

export interface Detection {
  layout: Layout
  /** In words, e.g. `the first 100 rows have "conversations" with "from" and "value": ShareGPT`. */
  evidence: string
}

/** The layout that most of `rows` show, the earlier one of two equals; undefined where none shows any. */
export function detectLayout(rows: readonly unknown[]): Detection | undefined {
  const found = new Map<Layout, Json[]>()
  for (const row of rows) {
    const layout = layoutOf(row)
    if (layout) found.set(layout, [...(found.get(layout) ?? []), row as Json])
  }
  const [best] = [...found].sort(([, a], [, b]) => b.length - a.length)
  if (!best) return undefined
  const [layout, shown] = best
  const which =
    rows.length === 1
      ? 'the first row has'
      : shown.length === rows.length
        ? `the first ${rows.length} rows have`
        : `${shown.length} of the first ${rows.length} rows have`
  // Rows of one layout may differ in what they show it by: labels here, weights there.
  const kinds = [...new Set(shown.map((row) => layout.evidence(row)!))]
  const aside = 'chosen' in shown[0]! && 'rejected' in shown[0]! ? '; "chosen" and "rejected" are left aside' : ''
  return { layout, evidence: `${which} ${kinds.join(' or ')}: ${layout.title}${aside}` }
}

/** Whether a row is a pair to prefer from, without an answer to learn. */
export function isPreference(row: unknown): boolean {
  return isObject(row) && 'chosen' in row && 'rejected' in row && !('output' in row || 'completion' in row)
}

/** What is said of a row that shows no layout at all. */
export function noLayout(row: unknown): RowProblem {
  if (!isObject(row)) return new RowProblem('', `expected an object, found ${kind(row)}`)
  const keys = Object.keys(row)
  const other = keys.length === 1 ? /[;\t|]/.exec(keys[0]!)?.[0] : undefined
  if (other) {
    const separator = other === '\t' ? 'tabs' : `"${other}"`
    return new RowProblem(
      '',
      `has one column, ${JSON.stringify(keys[0])}: cells are separated by commas, not by ${separator}`,
    )
  }
  const found = keys.slice(0, 6).map((key) => JSON.stringify(key.length > 40 ? `${key.slice(0, 40)}...` : key))
  return new RowProblem(
    '',
    'has the keys of no layout that is read ("messages"; "conversations"; "prompt" and "completion"; "instruction" and ' +
      `"output"; "input_ids"; "text"). Found ${found.join(', ') || 'no keys'}${keys.length > 6 ? ', ...' : ''}`,
  )
}

/** @throws RowProblem */
export function convertRow(row: unknown, layout: Layout, source: Source): Row {
  if (!isObject(row)) throw new RowProblem('', `expected an object, found ${kind(row)}`)
  if (!(layout.key in row)) {
    const other = layoutOf(row)
    if (other) {
      const evidence = other.evidence(row)
      throw new RowProblem('', `is ${other.title} (${evidence}), but this file is read as ${layout.title}`)
    }
  }
  return layout.convert(row, source)
}
