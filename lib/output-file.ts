/** Files that appear under their name whole or not at all: what is there already, and where they are written first. */
import { stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { TunesmithError } from './errors.ts'

/** @throws TunesmithError `ERR_OUTPUT_EXISTS` where `path` is there, unless it is a file and may be overwritten */
export async function refuseExisting(path: string, overwrite: boolean): Promise<void> {
  const found = await stat(path).catch(() => undefined)
  if (!found || (overwrite && found.isFile())) return
  const what = found.isFile() ? 'exists already; remove it, name another, or overwrite it' : 'is no file'
  throw new TunesmithError('ERR_OUTPUT_EXISTS', `output ${path} ${what}`)
}

/** Beside `path`, so that renaming is one step; of this process alone. */
export function stagingPath(path: string): string {
  return join(dirname(path), `.${basename(path)}.${process.pid}.partial`)
}

export function notWritable(path: string, error: unknown): TunesmithError {
  const { message } = error as Error
  return new TunesmithError('ERR_OUTPUT_NOT_WRITABLE', `output ${path} cannot be written: ${message}`, { cause: error })
}
