/**
 * Preparations kept on disk by content, so that the second run on the same data starts at once. Nothing depends on the
 * cache: whatever is wrong with it is told as a warning, and the data is prepared anew.
 */
import { randomBytes } from 'node:crypto'
import { open, readdir, rename, rm, stat, utimes } from 'node:fs/promises'
import { homedir } from 'node:os'
import { isAbsolute, join } from 'node:path'
import type { Warning } from '../../errors.ts'
import { makeFolder } from '../../make-folder.ts'
import type { PassResult } from '../pass.ts'
import { DamagedCache, readPass, writePass } from './file.ts'

/** The folder may hold so much; of files beyond, those that were not used for longest go. */
const LIMIT_BYTES = 10 * 2 ** 30
/** What a run that was killed left half-written is removed after so long. */
const STALE_MILLISECONDS = 24 * 60 * 60 * 1000
const ENTRY = /^[0-9a-f]{64}\.prepared$/
const TEMPORARY = /^[0-9a-f]{64}\.[0-9a-f]{16}\.tmp$/

/** `$XDG_CACHE_HOME/tunesmith/prepared`, by default under `~/.cache`. */
export function defaultCacheFolder(): string {
  const given = process.env.XDG_CACHE_HOME
  // The XDG specification has relative paths ignored.
  const base = given && isAbsolute(given) ? given : join(homedir(), '.cache')
  return join(base, 'tunesmith', 'prepared')
}

export class PrepareCache {
  readonly #folder: string
  readonly #limitBytes: number

  constructor(folder: string, limitBytes: number = LIMIT_BYTES) {
    this.#folder = folder
    this.#limitBytes = limitBytes
  }

  /** What was kept under `key`; undefined where nothing was, or nothing that can be used, which is then a warning. */
  async find(key: string, warnings: Warning[], signal?: AbortSignal): Promise<PassResult | undefined> {
    const path = this.#path(key)
    try {
      const result = await readPass(path, signal)
      const now = new Date()
      // Keeps it from being the next to go. A folder that cannot be written to is as good for reading.
      await utimes(path, now, now).catch(() => {})
      return result
    } catch (error) {
      signal?.throwIfAborted()
      const { code, message } = error as NodeJS.ErrnoException
      if (code === 'ENOENT' || code === 'ENOTDIR') return undefined
      const why = error instanceof DamagedCache ? `is damaged (${message})` : `cannot be read (${message})`
      warnings.push({ code: 'WARN_CACHE', message: `The cache file ${path} ${why}; the data is prepared anew` })
      return undefined
    }
  }

  /** Keeps `result` under `key`, whole or not at all. A failure is a warning. */
  async keep(key: string, result: PassResult, warnings: Warning[]): Promise<void> {
    const path = this.#path(key)
    const temporary = join(this.#folder, `${key}.${randomBytes(8).toString('hex')}.tmp`)
    try {
      await makeFolder(this.#folder)
      const handle = await open(temporary, 'wx')
      try {
        await writePass(handle, result)
      } finally {
        await handle.close()
      }
      await rename(temporary, path)
      await this.#makeRoom(path)
    } catch (error) {
      await rm(temporary, { force: true }).catch(() => {})
      const message = `The prepared data cannot be kept in ${this.#folder}: ${(error as Error).message}. Set cache to another folder or to false`
      warnings.push({ code: 'WARN_CACHE', message })
    }
  }

  #path(key: string): string {
    return join(this.#folder, `${key}.prepared`)
  }

  /** Removes the entries used least recently until the rest fits; the newest stays in any case. */
  async #makeRoom(newest: string): Promise<void> {
    const entries: { path: string; size: number; used: number }[] = []
    for (const name of await readdir(this.#folder)) {
      const path = join(this.#folder, name)
      const temporary = TEMPORARY.test(name)
      if (!temporary && !ENTRY.test(name)) continue
      // Another run may have removed it meanwhile.
      const found = await stat(path).catch(() => undefined)
      if (!found) continue
      if (!temporary) entries.push({ path, size: found.size, used: found.mtimeMs })
      else if (Date.now() - found.mtimeMs > STALE_MILLISECONDS) await rm(path, { force: true })
    }
    entries.sort((a, b) => a.used - b.used)
    let total = entries.reduce((sum, { size }) => sum + size, 0)
    for (const { path, size } of entries) {
      if (total <= this.#limitBytes) return
      if (path === newest) continue
      await rm(path, { force: true })
      total -= size
    }
  }
}
