/**
 * The rows of a CSV file of any size, as RFC 4180 has it: a header line, commas, quotes doubled inside quotes. A cell is
 * text; an empty one is absent. A row stands on the line where its record starts.
 */
import { isUtf8 } from 'node:buffer'
import { type CsvError, type InfoRecord, Parser } from 'csv-parse'
import { TunesmithError } from '../../errors.ts'
import { RowProblem } from '../rows.ts'
import { LONGEST_ROW_BYTES, notUtf8, type RawRow } from './raw-row.ts'

const NEWLINE = 0x0a

/**
 * One batch per chunk.
 *
 * @throws TunesmithError `ERR_DATA_FORMAT` for a header with a column twice, and for a quote after which records can no
 * longer be told apart.
 */
export async function* readCsv(chunks: AsyncIterable<Buffer>, path: string): AsyncGenerator<RawRow[]> {
  const records = new Records(path)
  for await (const chunk of chunks) {
    const rows = await records.push(chunk)
    if (rows.length > 0) yield rows
  }
  const rows = await records.end()
  if (rows.length > 0) yield rows
}

class Records {
  readonly #path: string
  readonly #parser: Parser
  #header: string[] | undefined
  #rows: RawRow[] = []
  /** What ended the reading; kept, because the parser does not expect its callbacks to throw. */
  #failure: TunesmithError | undefined
  /** Bytes of the chunks so far. */
  #read = 0
  /** Offsets of line breaks; those before `#passed` lie before the current record, and `#linesBefore` counts them all. */
  #breaks: number[] = []
  #passed = 0
  #linesBefore = 0

  constructor(path: string) {
    this.#path = path
    this.#parser = new Parser({
      // Cells stay bytes, so that those that are not UTF-8 are found instead of replaced.
      encoding: null,
      record_delimiter: ['\r\n', '\n', '\r'],
      relax_column_count: true,
      skip_records_with_error: true,
      max_record_size: LONGEST_ROW_BYTES,
      on_record: (record, info) => {
        // The types know neither that cells are bytes without an encoding nor the offset, which the manual has.
        this.#record(record as unknown as Buffer[], (info as InfoRecord & { bytes: number }).bytes)
        return null
      },
      on_skip: (error) => {
        this.#skip(error!)
        return undefined
      },
    })
  }

  async push(chunk: Buffer): Promise<RawRow[]> {
    this.#breaks = this.#breaks.slice(this.#passed)
    this.#passed = 0
    for (let at = chunk.indexOf(NEWLINE); at >= 0; at = chunk.indexOf(NEWLINE, at + 1))
      this.#breaks.push(this.#read + at)
    this.#read += chunk.length
    await this.#settle((done) => this.#parser.write(chunk, done))
    return this.#take()
  }

  async end(): Promise<RawRow[]> {
    await this.#settle((done) => this.#parser.end(done))
    return this.#take()
  }

  #take(): RawRow[] {
    const rows = this.#rows
    this.#rows = []
    return rows
  }

  async #settle(run: (done: (error?: Error | null) => void) => void): Promise<void> {
    // The parser tells its failures as an event too, which nobody else listens to.
    const failed = (error: Error) => {
      this.#failure ??= this.#broken(error.message, this.#lineAt(this.#read))
    }
    this.#parser.once('error', failed)
    await new Promise<void>((resolve) => {
      run((error) => {
        if (error) failed(error)
        resolve()
      })
    })
    if (this.#failure) throw this.#failure
    this.#parser.off('error', failed)
  }

  #record(cells: readonly Buffer[], end: number): void {
    if (this.#failure) return
    const line = this.#linesBefore + 1
    this.#advance(end)
    if (cells.length === 1 && cells[0]!.length === 0) return
    if (this.#header === undefined) this.#readHeader(cells)
    else this.#rows.push(this.#row(cells, line))
  }

  #row(cells: readonly Buffer[], line: number): RawRow {
    const header = this.#header!
    if (cells.length !== header.length) {
      const problem = `has ${cells.length} cells, but the header has ${header.length}; quote cells that contain commas`
      return { line, problem: new RowProblem('', problem) }
    }
    const wrong = cells.findIndex((cell) => !isUtf8(cell))
    if (wrong >= 0) return { line, problem: notUtf8(header[wrong]!) }
    const filled = cells.map((cell, index) => [header[index]!, cell.toString('utf8')] as const)
    return { line, value: Object.fromEntries(filled.filter(([, text]) => text !== '')) }
  }

  #readHeader(cells: readonly Buffer[]): void {
    const header = cells.map((cell) => cell.toString('utf8').trim())
    const twice = header.find((name, index) => header.indexOf(name) !== index)
    if (twice !== undefined) {
      this.#failure = new TunesmithError(
        'ERR_DATA_FORMAT',
        `${this.#path} has the column ${JSON.stringify(twice)} twice in its first line, which must be the header`,
      )
    }
    this.#header = header
  }

  /** A quote inside an unquoted cell spoils its record only; any other fault leaves open where the next one starts. */
  #skip(error: CsvError & { bytes?: number }): void {
    if (this.#failure) return
    const at = error.bytes ?? this.#read
    const line = this.#lineAt(at)
    if (error.code !== 'INVALID_OPENING_QUOTE') {
      const what =
        error.code === 'CSV_QUOTE_NOT_CLOSED'
          ? 'a quote that is opened in the record here never closes'
          : error.code === 'CSV_INVALID_CLOSING_QUOTE'
            ? 'text follows a closing quote; a quote inside a cell is written twice ("")'
            : error.message
      this.#failure = this.#broken(what, error.code === 'CSV_QUOTE_NOT_CLOSED' ? this.#linesBefore + 1 : line)
      return
    }
    const problem = new RowProblem('', 'has a quote inside an unquoted cell; quote the cell and double the quote')
    this.#rows.push({ line, problem })
    const end = this.#breaks[this.#passed + this.#breaksUpTo(at)]
    if (end !== undefined) this.#advance(end + 1)
  }

  #broken(what: string, line: number): TunesmithError {
    return new TunesmithError('ERR_DATA_FORMAT', `${this.#path}:${line}: ${what}. Nothing after that can be read`)
  }

  /** The line of the byte `position`, which is not before the current record. */
  #lineAt(position: number): number {
    return this.#linesBefore + 1 + this.#breaksUpTo(position)
  }

  /** The next record starts at byte `position`. */
  #advance(position: number): void {
    const passed = this.#breaksUpTo(position)
    this.#passed += passed
    this.#linesBefore += passed
  }

  /** Line breaks from the start of the current record up to `position`. */
  #breaksUpTo(position: number): number {
    let at = this.#passed
    while (at < this.#breaks.length && this.#breaks[at]! < position) at++
    return at - this.#passed
  }
}
