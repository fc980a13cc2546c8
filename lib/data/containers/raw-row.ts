/** A row as a file holds it, before its layout is looked at. */
import { isUtf8 } from 'node:buffer'
import { parseJson, RowProblem } from '../rows.ts'

export interface RawRow {
  /** As Source.line. */
  line: number
  /** Undefined where the row could not be read; `problem` says why. */
  value?: unknown
  problem?: RowProblem
}

/** V8's strings end at 512 MiB; no sensible row comes near this. */
export const LONGEST_ROW_BYTES = 256 << 20

export function tooLong(line: number, limit: number): RawRow {
  return { line, problem: new RowProblem('', `is longer than ${limit / 2 ** 20} MiB; a row is one conversation`) }
}

/** The row that JSON `bytes` spell; undefined where they are blank. */
export function jsonRow(bytes: Buffer, line: number): RawRow | undefined {
  if (!isUtf8(bytes)) return { line, problem: notUtf8('') }
  const text = bytes.toString('utf8')
  if (text.trim() === '') return undefined
  try {
    return { line, value: parseJson(text, '') }
  } catch (error) {
    if (!(error instanceof RowProblem)) throw error
    return { line, problem: error }
  }
}

export function notUtf8(field: string): RowProblem {
  return new RowProblem(field, 'is not valid UTF-8; save the file as UTF-8')
}
