/** From what `data.train` names (files and globs) to the files themselves. */
import { readdir, stat } from 'node:fs/promises'
import { dirname, join, parse, relative, sep } from 'node:path'
import { TunesmithError } from '../errors.ts'
import { checkContainer, containerOf } from './containers/index.ts'
import type { RowFormat } from './layouts/layout.ts'

/** An entry of `data.train` or `data.eval`: an absolute path or a glob (`*`, `?`, `**`). */
export interface DataEntry {
  path: string
  format: RowFormat
  /** Share of the entry's conversations that an epoch draws; 1 when absent. */
  proportion?: number
}

const MAGIC = /[*?]/

/**
 * The files that `entries` name, in their order; those of a glob sorted by path.
 *
 * @throws TunesmithError `ERR_DATA_NOT_FOUND` for a missing file, a glob without a match or a folder, `ERR_DATA_FORMAT`
 * for a file of a kind that is not read.
 */
export async function resolveFiles(entries: readonly DataEntry[]): Promise<DataEntry[]> {
  const files: DataEntry[] = []
  for (const { path, format } of entries) {
    for (const file of await matches(path)) {
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

async function glob(pattern: string): Promise<string[]> {
  const { root } = parse(pattern)
  const segments = pattern.slice(root.length).split(/[\\/]/)
  const firstMagic = segments.findIndex((segment) => MAGIC.test(segment))
  const base = root + segments.slice(0, firstMagic).join(sep)
  const test = globExpression(segments.slice(firstMagic))
  const depth = segments.includes('**') ? Number.POSITIVE_INFINITY : segments.length - firstMagic
  const found: string[] = []
  const walk = async (folder: string, level: number): Promise<void> => {
    const children = await readdir(folder, { withFileTypes: true }).catch(() => [])
    for (const child of children) {
      const path = join(folder, child.name)
      if (test.test(relative(base, path).split(sep).join('/')) && (await stat(path)).isFile()) found.push(path)
      if (child.isDirectory() && level < depth) await walk(path, level + 1)
    }
  }
  await walk(base || '.', 1)
  return found.sort((a, b) => (a < b ? -1 : a > b ? 1 : 0))
}

/** `*` and `?` stay inside a segment and do not match a leading dot; `**` spans any number of segments. */
function globExpression(segments: readonly string[]): RegExp {
  const parts = segments.map((segment, index) => {
    const last = index === segments.length - 1
    if (segment === '**') return last ? '(?:(?!\\.)[^/]+/)*(?!\\.)[^/]+' : '(?:(?!\\.)[^/]+/)*'
    const hidden = MAGIC.test(segment[0] ?? '') ? '(?!\\.)' : ''
    const body = segment
      .replace(/[.+^${}()|[\]\\]/g, '\\$&')
      .replaceAll('*', '[^/]*')
      .replaceAll('?', '[^/]')
    return hidden + body + (last ? '' : '/')
  })
  return new RegExp(`^${parts.join('')}$`, 's')
}
