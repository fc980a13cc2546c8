/** The file that scored pairs are written to: whole under its name, or not there at all. */
import { type FileHandle, open, rename, rm, stat } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { exactJson } from '../data/exact-json.ts'
import type { Json } from '../data/rows.ts'
import { TunesmithError } from '../errors.ts'
import type { COLUMNS } from './pair.ts'

/** A row as it was read, and what is added to it. */
export interface ScoredRow {
  row: Json
  columns: Record<(typeof COLUMNS)[number], number | Float64Array>
}

export class OutputFile {
  readonly path: string
  readonly #staging: string
  readonly #handle: FileHandle

  private constructor(path: string, staging: string, handle: FileHandle) {
    this.path = path
    this.#staging = staging
    this.#handle = handle
  }

  /**
   * @throws TunesmithError `ERR_INVALID_OPTION` for a name that is not .jsonl, `ERR_OUTPUT_EXISTS`,
   * `ERR_OUTPUT_NOT_WRITABLE`
   */
  static async open(output: string, overwrite: boolean): Promise<OutputFile> {
    const path = resolve(output)
    if (!/\.jsonl$/i.test(path))
      throw new TunesmithError('ERR_INVALID_OPTION', `output must be named .jsonl; found ${output}`)
    const found = await stat(path).catch(() => undefined)
    if (found && !(overwrite && found.isFile())) {
      const what = found.isFile() ? 'exists already; remove it, name another, or overwrite it' : 'is no file'
      throw new TunesmithError('ERR_OUTPUT_EXISTS', `output ${path} ${what}`)
    }
    const staging = join(dirname(path), `.${basename(path)}.${process.pid}.partial`)
    try {
      return new OutputFile(path, staging, await open(staging, 'w'))
    } catch (error) {
      throw notWritable(path, error)
    }
  }

  async write(rows: readonly ScoredRow[]): Promise<void> {
    try {
      await this.#handle.appendFile(rows.map((row) => `${jsonLine(row)}\n`).join(''))
    } catch (error) {
      throw notWritable(this.path, error)
    }
  }

  /** Puts the file in its place. */
  async publish(): Promise<void> {
    try {
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

/** The row is written as it was spelt, with the columns at its end. */
function jsonLine({ row, columns }: ScoredRow): string {
  return `${exactJson(row).slice(0, -1)},${exactJson(columns).slice(1)}`
}

function notWritable(path: string, error: unknown): TunesmithError {
  const { message } = error as Error
  return new TunesmithError('ERR_OUTPUT_NOT_WRITABLE', `output ${path} cannot be written: ${message}`, { cause: error })
}
