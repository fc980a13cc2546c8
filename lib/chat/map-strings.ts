/** A copy of a JSON value with every string in it changed. */
import { copyNotes } from '../data/exact-json.ts'
import { RowProblem } from '../data/rows.ts'

/** Deeper than any row that means something; far from the end of the stack. */
const DEEPEST = 1000

/**
 * `value` with its strings through `change`, and the keys of its objects through `changeKey` [as they are].
 *
 * @throws RowProblem where it is nested more than 1000 deep
 */
export function mapStrings(
  value: unknown,
  change: (text: string) => string,
  changeKey = (key: string) => key,
  depth = 0,
): unknown {
  if (typeof value === 'string') return change(value)
  if (typeof value !== 'object' || value === null) return value
  if (depth > DEEPEST) throw new RowProblem('', `is nested more than ${DEEPEST} deep`)
  const inner = (item: unknown) => mapStrings(item, change, changeKey, depth + 1)
  const copy = Array.isArray(value)
    ? value.map(inner)
    : Object.fromEntries(Object.entries(value).map(([key, item]) => [changeKey(key), inner(item)]))
  copyNotes(value, copy, changeKey)
  return copy
}
