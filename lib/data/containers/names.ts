/** The kinds of files that hold rows, told from the end of their names. */
import { basename } from 'node:path'
import { TunesmithError } from '../../errors.ts'

export type Container = 'jsonl' | 'json' | 'csv' | 'parquet'

const EXTENSIONS: Readonly<Record<string, Container>> = {
  '.jsonl': 'jsonl',
  '.ndjson': 'jsonl',
  '.json': 'json',
  '.csv': 'csv',
  '.parquet': 'parquet',
}

const EXTENSION = /(\.[^.]*?)(\.gz|\.zst)?$/i

/** The container that a file's name tells; undefined where it tells none that is read. */
export function containerOf(path: string): Container | undefined {
  const [, extension = '', compression] = EXTENSION.exec(basename(path)) ?? []
  const container = EXTENSIONS[extension.toLowerCase()]
  return container === 'parquet' && compression !== undefined ? undefined : container
}

/** @throws TunesmithError `ERR_DATA_FORMAT` for a name that tells no container. */
export function checkContainer(path: string): void {
  if (containerOf(path) !== undefined) return
  const [, extension = '', compression = ''] = EXTENSION.exec(basename(path)) ?? []
  const read = '.jsonl, .json, .csv (each also with .gz or .zst) and .parquet are'
  const why =
    extension === ''
      ? `${basename(path)} has no extension; ${read} read`
      : EXTENSIONS[extension.toLowerCase()] === 'parquet'
        ? `Parquet is compressed inside; unpack the ${compression} around it`
        : `${extension}${compression} files are not read; ${read}`
  throw new TunesmithError('ERR_DATA_FORMAT', `Cannot read ${path}: ${why}`)
}

/** Whether cells are text where rows hold lists and objects. */
export function hasTextCells(path: string): boolean {
  const container = containerOf(path)
  return container === 'csv' || container === 'parquet'
}
