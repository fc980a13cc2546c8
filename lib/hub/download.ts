/**
 * One file from the hub into the cache. It is written under a name of its own, checked against the size and hash that the
 * repository lists, and only then given its place. What a connection that broke, or a process that died, has left behind
 * is continued.
 */
import { createHash, type Hash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises'
import { hostname } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { downloadFile } from '@huggingface/hub'
import { TunesmithError } from '../errors.ts'
import type { RepoCache, RepoFile } from './cache.ts'
import type { HubEnvironment } from './environment.ts'
import { hubError, isTransient } from './errors.ts'
import { type HubRef, refName } from './ref.ts'

const ATTEMPTS = 5
/** Room between two progress reports, bytes. */
const REPORT_BYTES = 1 << 20

export interface DownloadHooks {
  /** Bytes of the file that are there. */
  onProgress?: (done: number) => void
  signal?: AbortSignal | undefined
}

/**
 * Fetches `file` at `commit` into the cache's blobs.
 *
 * @throws TunesmithError `ERR_HUB_DOWNLOAD` where the content is not what the repository lists, and as hubError().
 */
export async function downloadBlob(
  ref: HubRef,
  commit: string,
  file: RepoFile,
  { cache, hub }: { cache: RepoCache; hub: HubEnvironment },
  hooks: DownloadHooks = {},
): Promise<void> {
  const blob = cache.blob(file.etag)
  if ((await sizeOf(blob)) === file.size) return
  await mkdir(dirname(blob), { recursive: true })
  const partial = await claimPartial(blob)
  let damaged = false
  for (let attempt = 1; ; attempt++) {
    try {
      await continueDownload(partial, { ref, commit, file, hub }, hooks)
      if (await isWhole(partial, file)) break
      // Of what an earlier attempt left, a byte was wrong: once more from the start.
      await rm(partial, { force: true })
      if (damaged) {
        throw new TunesmithError(
          'ERR_HUB_DOWNLOAD',
          `${hub.endpoint} gives ${file.path} of ${refName(ref)} with a content that differs from what the repository lists ` +
            `(${file.size} bytes, ${file.hash} ${file.etag}). Nothing of it was kept; try again, or another HF_ENDPOINT`,
        )
      }
      damaged = true
    } catch (error) {
      hooks.signal?.throwIfAborted()
      if (!isTransient(error) || attempt === ATTEMPTS) throw hubError(error, ref, hub, file.path)
      await sleep(hub.retryDelay * 2 ** (attempt - 1), undefined, { ...(hooks.signal && { signal: hooks.signal }) })
    }
  }
  await rename(partial, blob)
}

/** Appends to `partial` what it lacks. */
async function continueDownload(
  partial: string,
  { ref, commit, file, hub }: { ref: HubRef; commit: string; file: RepoFile; hub: HubEnvironment },
  { onProgress, signal }: DownloadHooks,
): Promise<void> {
  let done = (await sizeOf(partial)) ?? 0
  if (done > file.size) {
    await rm(partial)
    done = 0
  }
  onProgress?.(done)
  const handle = await open(partial, 'a')
  try {
    if (done === file.size) return
    const whole = await downloadFile({
      repo: { type: ref.type, name: ref.id },
      path: file.path,
      revision: commit,
      hubUrl: hub.endpoint,
      fetch: (url, init) => fetch(url, { ...init, ...(signal && { signal }) }),
      ...(hub.token && { accessToken: hub.token }),
    })
    if (whole === null) throw new TunesmithError('ERR_HUB_NOT_FOUND', `${refName(ref)} has no file ${file.path}`)
    let told = done
    for await (const chunk of (done === 0 ? whole : whole.slice(done)).stream()) {
      await handle.write(chunk)
      done += chunk.length
      if (done > file.size) return
      if (done - told >= REPORT_BYTES || done === file.size) {
        onProgress?.(done)
        told = done
      }
    }
  } finally {
    await handle.close()
  }
}

async function isWhole(path: string, { size, etag, hash }: RepoFile): Promise<boolean> {
  if ((await sizeOf(path)) !== size) return false
  const digest: Hash = createHash(hash === 'sha256' ? 'sha256' : 'sha1')
  if (hash === 'git') digest.update(`blob ${size}\0`)
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) digest.update(chunk as Buffer)
  return digest.digest('hex') === etag
}

/**
 * The file to write into: named after this process, so that no two write into one. A file whose process on this machine
 * has ended is taken over, with what it holds.
 */
async function claimPartial(blob: string): Promise<string> {
  const own = `${blob}.${hostname()}.${process.pid}.incomplete`
  const prefix = `${basename(blob)}.${hostname()}.`
  for (const name of await readdir(dirname(blob))) {
    if (!name.startsWith(prefix) || !name.endsWith('.incomplete')) continue
    const pid = Number(name.slice(prefix.length, -'.incomplete'.length))
    if (pid === process.pid || !Number.isInteger(pid) || isAlive(pid)) continue
    // Another process may have been faster; then there is nothing to continue.
    const claimed = await rename(join(dirname(blob), name), own).then(
      () => true,
      () => false,
    )
    if (claimed) break
  }
  return own
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH'
  }
}

async function sizeOf(path: string): Promise<number | undefined> {
  return (await stat(path).catch(() => undefined))?.size
}
