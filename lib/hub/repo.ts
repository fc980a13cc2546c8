/** A repository at one commit: what it holds, and its files in the cache, fetched where they are missing. */
import { datasetInfo, type ListFileEntry, listFiles, modelInfo } from '@huggingface/hub'
import { TunesmithError, type Warning } from '../errors.ts'
import { RepoCache, type RepoFile } from './cache.ts'
import { downloadBlob } from './download.ts'
import type { HubEnvironment } from './environment.ts'
import { hubError, isTransient, unreachable } from './errors.ts'
import { type HubRef, refName } from './ref.ts'
import { pause, requestOptions } from './request.ts'

export interface HubHooks {
  /** Bytes of all files that are being fetched. */
  onProgress?: (done: number, total: number) => void
  onWarning?: (warning: Warning) => void
  signal?: AbortSignal | undefined
}

/** Before the cache is used instead, or the run ends. */
const ATTEMPTS = 3

export class Repo {
  readonly ref: HubRef
  readonly commit: string
  /** Every path in the repository; of one that was never listed, those in the cache. */
  readonly paths: readonly string[]
  readonly #hub: HubEnvironment
  readonly #cache: RepoCache
  /** Undefined where the repository was never listed: only what lies in the cache is known. */
  readonly #files: Map<string, RepoFile> | undefined
  readonly #offline: boolean
  readonly #hooks: HubHooks

  private constructor(
    ref: HubRef,
    { hub, cache, commit, files, present, offline }: Found & { hub: HubEnvironment; cache: RepoCache },
    hooks: HubHooks,
  ) {
    this.ref = ref
    this.commit = commit
    this.#hub = hub
    this.#cache = cache
    this.#files = files && new Map(files.map((file) => [file.path, file]))
    this.paths = files ? files.map(({ path }) => path) : present
    this.#offline = offline
    this.#hooks = hooks
  }

  /**
   * Asks the hub what `ref` is, or the cache where the hub must not or cannot be asked.
   *
   * @throws TunesmithError `ERR_HUB_NOT_FOUND`, `ERR_HUB_ACCESS`, `ERR_HUB_UNREACHABLE`, `ERR_HUB_DOWNLOAD`
   */
  static async open(ref: HubRef, hub: HubEnvironment, hooks: HubHooks = {}): Promise<Repo> {
    const cache = new RepoCache(ref, hub)
    const found = hub.offline
      ? await fromCache(ref, hub, cache, 'HF_HUB_OFFLINE is set')
      : await ask(ref, hub, cache, hooks)
    return new Repo(ref, { ...found, hub, cache }, hooks)
  }

  /** The folder in which the files lie as in the repository. */
  get folder(): string {
    return this.#cache.snapshot(this.commit)
  }

  /**
   * Local paths of files of the repository, in the order given.
   *
   * @throws TunesmithError as open()
   */
  async fetch(paths: readonly string[]): Promise<string[]> {
    const { onProgress, signal } = this.#hooks
    const local: string[] = []
    const total = paths.reduce((sum, path) => sum + (this.#files?.get(path)?.size ?? 0), 0)
    let done = 0
    let fetched = false
    for (const path of paths) {
      const file = this.#files?.get(path)
      if (file === undefined) {
        local.push(`${this.folder}/${path}`)
        continue
      }
      let found = await this.#cache.find(this.commit, file)
      if (found === undefined) {
        if (this.#offline) throw unreachable(this.ref, this.#hub, 'the network is not used', path)
        fetched = true
        const before = done
        await downloadBlob(
          this.ref,
          this.commit,
          file,
          { cache: this.#cache, hub: this.#hub },
          { onProgress: (bytes) => onProgress?.(before + bytes, total), signal },
        )
        found = await this.#cache.link(this.commit, file)
      }
      done += file.size
      if (fetched) onProgress?.(done, total)
      local.push(found)
    }
    return local
  }
}

interface Found {
  commit: string
  files: RepoFile[] | undefined
  /** Paths in the cache where `files` is not known. */
  present: string[]
  offline: boolean
}

async function fromCache(
  ref: HubRef,
  hub: HubEnvironment,
  cache: RepoCache,
  why: string,
  cause?: unknown,
): Promise<Found> {
  const commit = await cache.knownCommit()
  const files = commit === undefined ? undefined : await cache.knownFiles(commit)
  const present = commit === undefined || files ? [] : await cache.present(commit)
  if (commit === undefined || (files === undefined && present.length === 0)) {
    throw unreachable(ref, hub, why, undefined, cause)
  }
  return { commit, files, present, offline: true }
}

async function ask(ref: HubRef, hub: HubEnvironment, cache: RepoCache, hooks: HubHooks): Promise<Found> {
  const { signal } = hooks
  const request = requestOptions(hub, signal)
  for (let attempt = 1; ; attempt++) {
    try {
      // A commit never changes: what is known of it needs no question.
      let commit = /^[0-9a-f]{40}$/.test(ref.revision) ? ref.revision : undefined
      if (commit === undefined) {
        const info = { name: ref.id, revision: ref.revision, additionalFields: ['sha' as const], ...request }
        commit = (ref.type === 'dataset' ? await datasetInfo(info) : await modelInfo(info)).sha
        await cache.rememberCommit(commit)
      }
      let files = await cache.knownFiles(commit)
      if (files === undefined) {
        files = []
        const repo = { type: ref.type, name: ref.id }
        for await (const entry of listFiles({ repo, revision: commit, recursive: true, ...request })) {
          if (entry.type === 'file') files.push(repoFile(entry, ref))
        }
        await cache.rememberFiles(commit, files)
      }
      return { commit, files, present: [], offline: false }
    } catch (error) {
      signal?.throwIfAborted()
      if (!isTransient(error)) throw hubError(error, ref, hub)
      if (attempt < ATTEMPTS) {
        await pause(attempt, hub, signal)
        continue
      }
      const failure = hubError(error, ref, hub) as TunesmithError
      // Nothing in the cache either: then the first failure is the one to tell.
      const cached = await fromCache(ref, hub, cache, '').catch(() => undefined)
      if (cached === undefined) throw failure
      hooks.onWarning?.({
        code: 'WARN_HUB_UNREACHABLE',
        message: `${hub.endpoint} did not answer; using ${refName(ref)} as it lies in the cache (commit ${cached.commit.slice(0, 8)})`,
      })
      return cached
    }
  }
}

/** Paths become files on this machine: none may leave its folder, and no hash may be a path. */
function repoFile({ path, size, oid, lfs }: ListFileEntry, ref: HubRef): RepoFile {
  const etag = lfs?.oid ?? oid ?? ''
  const segments = path.split('/')
  const unsafe = segments.some((name) => name === '' || name === '.' || name === '..' || /[\\:\0]/.test(name))
  if (unsafe || !/^[0-9a-f]{40,64}$/.test(etag)) {
    throw new TunesmithError('ERR_HUB_DOWNLOAD', `${refName(ref)} lists a file that cannot be: ${JSON.stringify(path)}`)
  }
  return { path, size: lfs?.size ?? size, etag, hash: lfs ? 'sha256' : 'git' }
}
