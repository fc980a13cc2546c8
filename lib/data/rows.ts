/** What every row layout needs: the problem of a row, and checks of JSON values that say what they found. */
import { parseExactJson } from './exact-json.ts'
import { findJsonError } from './json-error.ts'

/** What is wrong with one row. Caught where rows are read; `onBadRow` decides what becomes of it. */
export class RowProblem extends Error {
  /** Path inside the row, e.g. `messages[2].content`; empty for the row as a whole. */
  readonly field: string

  constructor(field: string, message: string) {
    super(message)
    this.field = field
  }
}

export type Json = Record<string, unknown>

/** Calls `visit` for every string in a JSON value, with its path. Iterative: nesting cannot overflow the stack. */
export function visitStrings(value: unknown, field: string, visit: (text: string, field: string) => void): void {
  const stack: [unknown, string][] = [[value, field]]
  for (let entry = stack.pop(); entry !== undefined; entry = stack.pop()) {
    const [current, path] = entry
    if (typeof current === 'string') {
      visit(current, path)
    } else if (Array.isArray(current)) {
      for (let i = current.length - 1; i >= 0; i--) stack.push([current[i], `${path}[${i}]`])
    } else if (isObject(current)) {
      const entries = Object.entries(current)
      for (const [key, child] of entries.reverse()) {
        stack.push([child, `${path}.${key}`])
        visit(key, path)
      }
    }
  }
}

/**
 * Half of a surrogate pair cannot be written as UTF-8, so the tokenizer would see something else.
 *
 * @throws RowProblem
 */
export function checkText(value: unknown, field: string): void {
  visitStrings(value, field, (text, at) => {
    const index = text.search(/\p{Surrogate}/u)
    if (index >= 0) {
      const half = `\\u${text.charCodeAt(index).toString(16)}`
      throw new RowProblem(at, `contains ${half} alone, half of a surrogate pair; remove it or complete the pair`)
    }
  })
}

export function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** What a value is, for messages. */
export function kind(value: unknown): string {
  if (value === undefined) return 'nothing'
  if (value === null) return 'null'
  if (Array.isArray(value)) return 'a list'
  if (typeof value === 'string') return 'text'
  return typeof value === 'object' ? 'an object' : `a ${typeof value}`
}

/** The start of a value, for messages. */
export function shown(value: unknown): string {
  const text = typeof value === 'bigint' ? String(value) : (JSON.stringify(value) ?? 'nothing')
  return text.length > 40 ? `${text.slice(0, 40)}...` : text
}

/** @throws RowProblem where `value` is not a string that has more than white space. */
export function requireText(value: unknown, field: string): string {
  if (typeof value !== 'string') throw new RowProblem(field, `expected text, found ${kind(value)}`)
  if (value.trim() === '') throw new RowProblem(field, 'is empty; remove the row')
  checkText(value, field)
  return value
}

/**
 * Text that a row may leave out: '' where it is absent, null or blank.
 *
 * @throws RowProblem where `value` is something else than text
 */
export function optionalText(value: unknown, field: string): string {
  if (value === undefined || value === null) return ''
  if (typeof value !== 'string') throw new RowProblem(field, `expected text, found ${kind(value)}`)
  checkText(value, field)
  return value.trim() === '' ? '' : value
}

/** @throws RowProblem where `value` is neither absent (undefined or null) nor a loss weight. */
export function optionalWeight(value: unknown, field: string): number | undefined {
  if (value === undefined || value === null) return undefined
  // Weights travel as float32: what overflows there would be infinite.
  if (typeof value === 'number' && Number.isFinite(Math.fround(value)) && value >= 0) return value
  throw new RowProblem(field, `expected a number from 0 up, found ${shown(value)}`)
}

/** The value that JSON `text` spells. @throws RowProblem with the column where it is broken. */
export function parseJson(text: string, field: string): unknown {
  try {
    return parseExactJson(text)
  } catch (error) {
    const found = findJsonError(text)
    const where = found ? `column ${found.column}: ${found.reason}` : (error as Error).message
    throw new RowProblem(field, `is not valid JSON: ${where}`)
  }
}
