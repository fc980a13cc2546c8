/** The rows of data files, validated, in batches. Files of any size stream; the layout is told from the first rows. */
import { TunesmithError, type Warning } from '../errors.ts'
import { type BadRows, EXAMPLES } from './bad-rows.ts'
import { parseCells } from './cells.ts'
import { readContainer } from './containers/index.ts'
import { hasTextCells } from './containers/names.ts'
import type { RawRow } from './containers/raw-row.ts'
import type { Row } from './conversation.ts'
import { convertRow, detectLayout, isPreference, layoutNamed, layoutOf, noLayout } from './layouts/index.ts'
import type { Layout, LayoutName, RowFormat } from './layouts/layout.ts'
import { isObject, type Json, RowProblem } from './rows.ts'
import { place } from './source.ts'

/** A file to read. */
export interface DataFile {
  path: string
  format: RowFormat
}

/** As what a file was read, and why. */
export interface FileFormat {
  file: string
  format: LayoutName
  /** In words, e.g. `the first 100 rows have "messages": messages`. */
  evidence: string
}

/** What reading found, filled while it goes. */
export interface ReadReport {
  /** Rows that are not blank, bad ones included. */
  rows: number
  bad: BadRows
  /** One per file with a row. */
  formats: FileFormat[]
  warnings: Warning[]
}

/** Rows that are looked at to tell the layout. */
const DETECT_ROWS = 100
/** Rows after the first bad one that are looked at to say how many more there are. */
const LOOK_AHEAD_ROWS = 100_000

/**
 * The valid rows of `files`, in order, in batches of about a megabyte of text.
 *
 * @throws TunesmithError `ERR_BAD_ROW` for the first malformed row unless they are skipped, `ERR_DATA_FORMAT` for
 * preference data and for a file whose rows cannot be told apart, `ERR_DATA_READ` for one that cannot be read,
 * `ERR_EMPTY_DATASET` where no row is left.
 */
export async function* readRows(files: readonly DataFile[], report: ReadReport): AsyncGenerator<Row[]> {
  let valid = 0
  for (const file of files) {
    const before = report.rows
    for await (const batch of readFile(file, report)) {
      valid += batch.length
      yield batch
    }
    if (report.rows === before && files.length > 1)
      report.warnings.push({ code: 'WARN_EMPTY_FILE', message: `${file.path} has no rows` })
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

async function* readFile(file: DataFile, report: ReadReport): AsyncGenerator<Row[]> {
  const { path } = file
  const textCells = hasTextCells(path)
  const batches = readContainer(path)
  let layout: Layout | undefined
  const convert = (raw: RawRow): Row => {
    if (raw.problem) throw raw.problem
    if (!layout) throw noLayout(raw.value)
    const value = textCells && isObject(raw.value) ? parseCells(raw.value, layout) : raw.value
    return convertRow(value, layout, { file: path, line: raw.line })
  }
  for await (const batch of batches) {
    layout ??= chooseLayout(file, batch, report)
    const rows: Row[] = []
    for (const [index, raw] of batch.entries()) {
      report.rows++
      try {
        rows.push(convert(raw))
      } catch (error) {
        if (!(error instanceof RowProblem)) throw error
        const more = report.bad.skips || !layout ? '' : await countMore(batch.slice(index + 1), batches, convert)
        report.bad.add({ file: path, line: raw.line }, error, more)
      }
    }
    if (rows.length > 0) yield rows
  }
}

/** The layout that the options name, or that the first rows show; undefined where these show none. */
function chooseLayout({ path, format }: DataFile, batch: readonly RawRow[], report: ReadReport): Layout | undefined {
  const found =
    format === 'auto' ? detect(path, batch) : { layout: layoutNamed(format), evidence: 'as the options say' }
  if (!found) return undefined
  report.formats.push({ file: path, format: found.layout.name, evidence: found.evidence })
  return found.layout
}

function detect(path: string, batch: readonly RawRow[]): ReturnType<typeof detectLayout> {
  const readable = batch.filter(({ problem }) => problem === undefined).slice(0, DETECT_ROWS)
  const preference = readable[0]
  if (preference && isPreference(preference.value)) {
    throw new TunesmithError(
      'ERR_DATA_FORMAT',
      `${place({ file: path, line: preference.line })} has "chosen" and "rejected": preference data, which is not read. ` +
        'For supervised fine-tuning give the chosen answer as "completion" beside "prompt", or as messages',
    )
  }
  const values = readable.map(({ value }) => value)
  return detectLayout(hasTextCells(path) ? values.map(withCells) : values)
}

/** A table's row with its cells parsed where they can be: what they hold belongs to the evidence. */
function withCells(value: unknown): unknown {
  const layout = layoutOf(value)
  if (!layout) return value
  try {
    return parseCells(value as Json, layout)
  } catch {
    return value
  }
}

/** Rows after a bad one that are bad too, so that one run of a broken file tells its extent. */
async function countMore(
  rest: readonly RawRow[],
  batches: AsyncGenerator<RawRow[]>,
  convert: (raw: RawRow) => Row,
): Promise<string> {
  let more = 0
  let looked = 0
  for (let batch: readonly RawRow[] | undefined = rest; batch !== undefined; ) {
    for (const raw of batch) {
      if (looked++ === LOOK_AHEAD_ROWS) return more === 0 ? '' : `; at least ${more} more bad rows follow in this file`
      try {
        convert(raw)
      } catch (error) {
        if (!(error instanceof RowProblem)) throw error
        more++
      }
    }
    const next: IteratorResult<RawRow[]> = await batches.next()
    batch = next.done ? undefined : next.value
  }
  return more === 0 ? '' : `; ${more} more bad ${more === 1 ? 'row follows' : 'rows follow'} in this file`
}
