/** The file that scored pairs are written to: whole under its name, or not there at all. */
import { type FileHandle, open, rename, rm } from 'node:fs/promises'
import { resolve } from 'node:path'
import { copyNotes, exactJson } from '../data/exact-json.ts'
import type { Json } from '../data/rows.ts'
import { TunesmithError } from '../errors.ts'
import { notWritable, refuseExisting, stagingPath } from '../output-file.ts'
import type { COLUMNS } from './pair.ts'
import { parquetBytes } from './parquet.ts'

/** A row as it was read, and what is added to it. */
export interface ScoredRow {
  row: Json
  columns: Record<(typeof COLUMNS)[number], number | Float64Array>
}

export class OutputFile {
  readonly path: string
  /** Columns are written whole: until then the rows of a Parquet file wait here. */
  readonly #columns: Json[] | undefined
  readonly #staging: string
  readonly #handle: FileHandle

  private constructor(path: string, staging: string, handle: FileHandle) {
    this.path = path
    this.#columns = /\.parquet$/i.test(path) ? [] : undefined
    this.#staging = staging
    this.#handle = handle
  }

  /**
   * @throws TunesmithError `ERR_INVALID_OPTION` for a name that is neither .jsonl nor .parquet, `ERR_OUTPUT_EXISTS`,
   * `ERR_OUTPUT_NOT_WRITABLE`
   */
  static async open(output: string, overwrite: boolean): Promise<OutputFile> {
    const path = resolve(output)
    if (!/\.(jsonl|parquet)$/i.test(path))
      throw new TunesmithError('ERR_INVALID_OPTION', `output must be named .jsonl or .parquet; found ${output}`)
    await refuseExisting(path, overwrite)
    const staging = stagingPath(path)
    try {
      return new OutputFile(path, staging, await open(staging, 'w'))
    } catch (error) {
      throw notWritable(path, error)
    }
  }

  async write(rows: readonly ScoredRow[]): Promise<void> {
    if (this.#columns) {
      this.#columns.push(...rows.map(({ row, columns }) => withColumns(row, columns)))
      return
    }
    try {
      await this.#handle.appendFile(rows.map((row) => `${jsonLine(row)}\n`).join(''))
    } catch (error) {
      throw notWritable(this.path, error)
    }
  }

  /**
   * Puts the file in its place.
   *
   * @throws TunesmithError `ERR_OUTPUT_NOT_WRITABLE`, `ERR_DATA_FORMAT` for rows that Parquet cannot hold
   */
  async publish(): Promise<void> {
    const bytes = this.#columns && parquetBytes(this.#columns)
    try {
      if (bytes) await this.#handle.writeFile(bytes)
      await this.#handle.sync()
      await this.#handle.close()
      await rename(this.#staging, this.path)
    } catch (error) {
      throw notWritable(this.path, error)
    }
  }

  /** Leaves nothing behind; after publish() without effect. */
  async discard(): Promise<void> {
    await this.#handle.close().catch(() => undefined)
    await rm(this.#staging, { force: true })
  }
}

function withColumns(row: Json, columns: ScoredRow['columns']): Json {
  const copy = { ...row, ...columns }
  copyNotes(row, copy)
  return copy
}

/** The row is written as it was spelt, with the columns at its end. */
function jsonLine({ row, columns }: ScoredRow): string {
  return `${exactJson(row).slice(0, -1)},${exactJson(columns).slice(1)}`
}
