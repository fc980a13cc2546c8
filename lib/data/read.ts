/** The rows of data files, validated, in batches. Files of any size stream; the layout is told from the first row. */
import { TunesmithError, type Warning } from '../errors.ts'
import { type BadRows, EXAMPLES } from './bad-rows.ts'
import type { Conversation, TextRow } from './conversation.ts'
import { findJsonError } from './json-error.ts'
import { type Line, readLines } from './jsonl.ts'
import type { DataEntry, RowFormat } from './paths.ts'
import { type DetectedFormat, detectFormat, RowProblem, validateRow } from './rows.ts'

export type Row = Conversation | TextRow

export function isConversation(row: Row): row is Conversation {
  return 'messages' in row
}

/** What reading found, filled while it goes. */
export interface ReadReport {
  /** Rows that are not blank, bad ones included. */
  rows: number
  bad: BadRows
  warnings: Warning[]
}

const REFUSED: Record<Exclude<DetectedFormat, 'messages' | 'text'>, string> = {
  conversations: 'ShareGPT rows ("conversations")',
  alpaca: 'Alpaca rows ("instruction")',
  prompt: 'prompt/completion rows ("prompt")',
  tokens: 'tokenised rows ("input_ids")',
}

/** Lines after the first bad one that are looked at to say how many more there are. */
const LOOK_AHEAD_LINES = 100_000

/**
 * The valid rows of `files`, in order, in batches of about a megabyte of text.
 *
 * @throws TunesmithError `ERR_BAD_ROW` for the first malformed row unless they are skipped, `ERR_DATA_FORMAT` for a
 * layout that is not read, `ERR_EMPTY_DATASET` where no row is left.
 */
export async function* readRows(files: readonly DataEntry[], report: ReadReport): AsyncGenerator<Row[]> {
  let valid = 0
  for (const { path, format } of files) {
    const before = report.rows
    for await (const batch of readFile(path, format, report)) {
      valid += batch.length
      yield batch
    }
    if (report.rows === before && files.length > 1)
      report.warnings.push({ code: 'WARN_EMPTY_FILE', message: `${path} has no rows` })
  }
  if (valid > 0) return
  const names = files.map(({ path }) => path)
  const shown = names.length > EXAMPLES ? `${names.slice(0, EXAMPLES).join(', ')}, ...` : names.join(', ')
  const message =
    report.rows === 0
      ? `${shown} ${names.length === 1 ? 'is' : 'are'} empty: there is nothing to read`
      : `All ${report.rows} rows of ${shown} are bad; the first: ${report.bad.examples[0]}`
  throw new TunesmithError('ERR_EMPTY_DATASET', message)
}

async function* readFile(path: string, format: RowFormat, report: ReadReport): AsyncGenerator<Row[]> {
  let known = format === 'auto' ? undefined : format
  const lines = readLines(path)
  for await (const batch of lines) {
    const rows: Row[] = []
    for (const [index, line] of batch.entries()) {
      report.rows++
      const source = { file: path, line: line.line }
      try {
        const value = parseLine(line)
        known ??= readable(value, path, line.line)
        if (known === undefined) throw new RowProblem('', 'has neither "messages" nor "text"')
        rows.push(validateRow(value, known, source))
      } catch (error) {
        if (!(error instanceof RowProblem)) throw error
        const more = report.bad.skips ? '' : await countMore(batch.slice(index + 1), lines, known)
        report.bad.add(source, error, more)
      }
    }
    if (rows.length > 0) yield rows
  }
}

function parseLine({ text, problem }: Line): unknown {
  if (text === undefined) throw new RowProblem('', problem!)
  try {
    return JSON.parse(text)
  } catch (error) {
    const found = findJsonError(text)
    const where = found ? `column ${found.column}: ${found.reason}` : (error as Error).message
    throw new RowProblem('', `is not valid JSON: ${where}`)
  }
}

/** The layout of the first row, undefined where it shows none. */
function readable(value: unknown, path: string, line: number): Exclude<RowFormat, 'auto'> | undefined {
  const found = detectFormat(value)
  if (found === undefined || found === 'messages' || found === 'text') return found
  throw new TunesmithError(
    'ERR_DATA_FORMAT',
    `${path}:${line}: ${REFUSED[found]} are not read. Convert them to {"messages": [{"role", "content"}, ...]}`,
  )
}

/** Rows after a bad one that are bad too, so that one run of a broken file tells its extent. */
async function countMore(rest: Line[], lines: AsyncGenerator<Line[]>, format: Exclude<RowFormat, 'auto'> | undefined) {
  if (format === undefined) return ''
  let more = 0
  let looked = 0
  for (let batch: Line[] | undefined = rest; batch !== undefined; ) {
    for (const line of batch) {
      if (looked++ === LOOK_AHEAD_LINES) return more === 0 ? '' : `; at least ${more} more bad rows follow in this file`
      try {
        validateRow(parseLine(line), format, { file: '', line: line.line })
      } catch (error) {
        if (!(error instanceof RowProblem)) throw error
        more++
      }
    }
    const next = await lines.next()
    batch = next.done ? undefined : next.value
  }
  return more === 0 ? '' : `; ${more} more bad ${more === 1 ? 'row follows' : 'rows follow'} in this file`
}
