/** Globs among the data files, expanded: `*` and `?` inside a name, `**` for any number of folders. */
import { existsSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { TunesmithError } from '../errors.ts'
import type { ResolvedDataFile } from './options.ts'

/**
 * `files` with every glob replaced by the files it matches, in the order of their names, so that the same folder gives
 * the same order everywhere. A path that exists is never read as a glob; one without a wildcard is passed on as it is.
 * No file is named twice: the first mention counts.
 *
 * @throws TunesmithError `ERR_DATA_NOT_FOUND` for a glob that matches nothing.
 */
export async function expandDataFiles(files: readonly ResolvedDataFile[]): Promise<ResolvedDataFile[]> {
  const found = new Map<string, ResolvedDataFile>()
  for (const file of files)
    for (const path of await expand(file.path)) if (!found.has(path)) found.set(path, { ...file, path })
  return [...found.values()]
}

async function expand(path: string): Promise<string[]> {
  if (!/[*?]/.test(path) || existsSync(path)) return [path]
  const parts = path.split(/[/\\]/)
  const first = parts.findIndex((part) => /[*?]/.test(part))
  const folder = parts.slice(0, first).join('/') || '/'
  const matches = await walk(folder, parts.slice(first))
  if (matches.length > 0) return [...new Set(matches)].sort()
  throw new TunesmithError('ERR_DATA_NOT_FOUND', `no file matches ${path}: check the pattern and the folder ${folder}`)
}

/** Files under `folder` whose path fits `parts`, one pattern per level. */
async function walk(folder: string, parts: readonly string[]): Promise<string[]> {
  const [part, ...rest] = parts
  if (part === undefined) return []
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => [])
  const below = await Promise.all(
    entries.map((entry) => {
      const path = join(folder, entry.name)
      const isFolder = entry.isDirectory()
      if (part === '**') return isFolder && !entry.name.startsWith('.') ? walk(path, parts) : []
      if (!pattern(part).test(entry.name)) return []
      if (rest.length > 0) return isFolder ? walk(path, rest) : []
      return isFolder ? [] : [path]
    }),
  )
  return [...below.flat(), ...(part === '**' ? await walk(folder, rest) : [])]
}

/** As in a shell, a leading dot is matched only by a dot. */
function pattern(part: string): RegExp {
  const body = part
    .replace(/[.+^${}()|[\]\\]/g, '\\$&')
    .replace(/\*+/g, '.*')
    .replace(/\?/g, '.')
  return new RegExp(`^${/^[*?]/.test(part) ? '(?!\\.)' : ''}${body}$`, 's')
}
