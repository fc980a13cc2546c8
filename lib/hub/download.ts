/**
 * One file from the hub into the cache. It is written under a name of its own, checked against the size and hash that the
 * repository lists, and only then given its place. What a connection that broke, or a process that died, has left behind
 * is continued.
 */
import { createHash, type Hash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { open, readdir, rename, rm, stat } from 'node:fs/promises'
import { hostname } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { downloadFile } from '@huggingface/hub'
import { TunesmithError } from '../errors.ts'
import { makeFolder } from '../make-folder.ts'
import type { RepoCache, RepoFile } from './cache.ts'
import type { HubEnvironment } from './environment.ts'
import { hubError, isTransient } from './errors.ts'
import { type HubRef, refName } from './ref.ts'
import { pause, requestOptions } from './request.ts'

/** Attempts in a row that bring nothing. */
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
  await makeFolder(dirname(blob))
  const partial = await claimPartial(blob)
  active.add(partial)
  try {
    await download(partial, { ref, commit, file, hub }, hooks)
    await rename(partial, blob)
  } finally {
    active.delete(partial)
  }
}

/** What one file is fetched with. */
interface Fetch {
  ref: HubRef
  commit: string
  file: RepoFile
  hub: HubEnvironment
}

/** Fills `partial` until it is what the repository lists. */
async function download(partial: string, { ref, commit, file, hub }: Fetch, hooks: DownloadHooks): Promise<void> {
  let damaged = false
  let attempt = 0
  for (;;) {
    const before = (await sizeOf(partial)) ?? 0
    try {
      await continueDownload(partial, { ref, commit, file, hub }, hooks)
      if (await isWhole(partial, file)) return
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
      attempt = ((await sizeOf(partial)) ?? 0) > before ? 1 : attempt + 1
      if (!isTransient(error) || attempt >= ATTEMPTS) throw hubError(error, ref, hub, file.path)
      await pause(attempt, hub, hooks.signal)
    }
  }
}

/** Appends to `partial` what it lacks. */
async function continueDownload(
  partial: string,
  { ref, commit, file, hub }: Fetch,
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
      ...requestOptions(hub, signal),
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

/** Files that this process writes into at the moment, and how many it has begun. */
const active = new Set<string>()
let begun = 0

/**
 * The file to write into: named after machine, process and download, so that no two write into one. A file of a process
 * on this machine that has ended, or of a download that has, is taken over with what it holds.
 */
async function claimPartial(blob: string): Promise<string> {
  const own = `${blob}.${hostname()}.${process.pid}-${begun++}.incomplete`
  const prefix = `${basename(blob)}.${hostname()}.`
  const left: { path: string; size: number }[] = []
  for (const name of await readdir(dirname(blob))) {
    if (!name.startsWith(prefix) || !name.endsWith('.incomplete')) continue
    const path = join(dirname(blob), name)
    const pid = Number.parseInt(name.slice(prefix.length), 10)
    if (pid === process.pid ? active.has(path) : isAlive(pid)) continue
    left.push({ path, size: (await sizeOf(path)) ?? 0 })
  }
  left.sort((a, b) => b.size - a.size)
  for (const [index, { path }] of left.entries()) {
    // Another process may have been faster; then there is nothing to continue.
    if (index === 0) await rename(path, own).catch(() => {})
    else await rm(path, { force: true })
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
