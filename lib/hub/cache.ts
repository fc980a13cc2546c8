/**
 * The cache of the hub on disk, laid out as huggingface_hub does, so that both use the same files:
 *
 *     datasets--org--name/refs/main                       the commit that a revision stands for
 *     datasets--org--name/blobs/ETAG                      contents
 *     datasets--org--name/snapshots/COMMIT/path/to/file   links to them
 *     datasets--org--name/.tunesmith/COMMIT.json          what the repository holds at that commit (ours)
 */
import { copyFile, readdir, readFile, rename, stat, symlink, writeFile } from 'node:fs/promises'
import { dirname, join, relative, sep } from 'node:path'
import { getRepoFolderName } from '@huggingface/hub'
import { makeFolder } from '../make-folder.ts'
import type { HubEnvironment } from './environment.ts'
import type { HubRef } from './ref.ts'

/** A file of a repository. */
export interface RepoFile {
  /** With slashes. */
  path: string
  size: number
  /** SHA-256 of the content where the hub keeps it as a large file, else its git object id (SHA-1). */
  etag: string
  hash: 'sha256' | 'git'
}

const COMMIT = /^[0-9a-f]{40}$/

export class RepoCache {
  readonly folder: string
  readonly #ref: HubRef

  constructor(ref: HubRef, { cacheFolder }: HubEnvironment) {
    this.#ref = ref
    this.folder = join(cacheFolder, getRepoFolderName({ type: ref.type, name: ref.id }))
  }

  blob(etag: string): string {
    return join(this.folder, 'blobs', etag)
  }

  snapshot(commit: string): string {
    return join(this.folder, 'snapshots', commit)
  }

  /** The commit that the revision stood for when it was last asked; undefined where it never was. */
  async knownCommit(): Promise<string | undefined> {
    const { revision } = this.#ref
    if (COMMIT.test(revision)) return revision
    const text = await readFile(join(this.folder, 'refs', revision), 'utf8').catch(() => '')
    return COMMIT.test(text.trim()) ? text.trim() : undefined
  }

  async rememberCommit(commit: string): Promise<void> {
    if (this.#ref.revision !== commit) await writeWhole(join(this.folder, 'refs', this.#ref.revision), commit)
  }

  /** What the repository holds at `commit`; undefined where it was never listed. */
  async knownFiles(commit: string): Promise<RepoFile[] | undefined> {
    try {
      const files: unknown = JSON.parse(await readFile(this.#listing(commit), 'utf8'))
      return Array.isArray(files) ? (files as RepoFile[]) : undefined
    } catch {
      return undefined
    }
  }

  async rememberFiles(commit: string, files: readonly RepoFile[]): Promise<void> {
    await writeWhole(this.#listing(commit), JSON.stringify(files))
  }

  #listing(commit: string): string {
    return join(this.folder, '.tunesmith', `${commit}.json`)
  }

  /** The path in the snapshot where the whole file lies there; undefined where it does not. */
  async find(commit: string, file: RepoFile): Promise<string | undefined> {
    const path = join(this.snapshot(commit), ...file.path.split('/'))
    const found = await stat(path).catch(() => undefined)
    return found?.isFile() && found.size === file.size ? path : undefined
  }

  /** Every file of the snapshot, whoever put it there. */
  async present(commit: string): Promise<string[]> {
    const folder = this.snapshot(commit)
    const entries = await readdir(folder, { recursive: true }).catch(() => [])
    const files: string[] = []
    for (const entry of entries) {
      if ((await stat(join(folder, entry)).catch(() => undefined))?.isFile()) files.push(entry.split(sep).join('/'))
    }
    return files.sort()
  }

  /** Puts a blob that is complete into the snapshot. */
  async link(commit: string, file: RepoFile): Promise<string> {
    const path = join(this.snapshot(commit), ...file.path.split('/'))
    const target = this.blob(file.etag)
    await makeFolder(dirname(path))
    const temporary = `${path}.${process.pid}.tmp`
    try {
      await symlink(relative(dirname(path), target), temporary)
    } catch {
      // Where links need rights that the user has not, as on Windows.
      await copyFile(target, temporary)
    }
    await rename(temporary, path)
    return path
  }
}

/** A reader never sees half of it. */
async function writeWhole(path: string, text: string): Promise<void> {
  await makeFolder(dirname(path))
  const temporary = `${path}.${process.pid}.tmp`
  await writeFile(temporary, text)
  await rename(temporary, path)
}
