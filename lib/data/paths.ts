/** From what `data.train` names (files and globs) to the files themselves. */
import { readdir, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { TunesmithError } from '../errors.ts'
import { checkContainer, containerOf } from './containers/names.ts'
import { glob, MAGIC } from './glob.ts'
import type { RowFormat } from './layouts/layout.ts'

/** An entry of `data.train` or `data.eval`: an absolute path or a glob (`*`, `?`, `**`). */
export interface DataEntry {
  path: string
  format: RowFormat
  /** The files themselves where they are known already: those of a hub dataset, which `path` then names. */
  files?: readonly string[]
  /** Share of the entry's conversations that an epoch draws; 1 when absent. */
  proportion?: number
}

/**
 * The files that `entries` name, in their order; those of a glob sorted by path.
 *
 * @throws TunesmithError `ERR_DATA_NOT_FOUND` for a missing file, a glob without a match or a folder, `ERR_DATA_FORMAT`
 * for a file of a kind that is not read.
 */
export async function resolveFiles(entries: readonly DataEntry[]): Promise<DataEntry[]> {
  const files: DataEntry[] = []
  for (const { path, format, files: known } of entries) {
    for (const file of known ?? (await matches(path))) {
      checkContainer(file)
      files.push({ path: file, format })
    }
  }
  return files
}

async function matches(path: string): Promise<string[]> {
  const found = await stat(path).catch(() => undefined)
  if (found?.isDirectory()) {
    throw notFound(`${path} is a folder; name its files, for example ${join(path, '*.jsonl')}`)
  }
  // A file whose name happens to contain * or ? is itself before it is a glob.
  if (found) return [path]
  if (!MAGIC.test(path)) throw notFound(`The data file ${path} does not exist${await nearby(path)}`)
  const files = await glob(path)
  if (files.length === 0) throw notFound(`No file matches ${path}`)
  return files
}

function notFound(message: string): TunesmithError {
  return new TunesmithError('ERR_DATA_NOT_FOUND', message)
}

async function nearby(path: string): Promise<string> {
  const siblings = await readdir(dirname(path)).catch(() => undefined)
  if (siblings === undefined) return `, nor does its folder`
  const data = siblings.filter((name) => containerOf(name) !== undefined).sort()
  return data.length === 0 ? '' : `; its folder has ${data.slice(0, 5).join(', ')}${data.length > 5 ? ', ...' : ''}`
}
