/** Globs: `*` and `?` stay inside a segment, `**` spans any number of them. */
import { readdir, stat } from 'node:fs/promises'
import { join, parse, relative, sep } from 'node:path'

export const MAGIC = /[*?]/

/** The files that `pattern` matches, sorted; `pattern` is absolute. */
export async function glob(pattern: string): Promise<string[]> {
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
export function globExpression(segments: readonly string[]): RegExp {
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
