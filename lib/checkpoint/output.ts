/** What a run asks of its output folder before it starts, so that it does not end in an error hours later. */
import { readdir, readFile, realpath, rm, stat, statfs, unlink, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join, resolve } from 'node:path'
import { TunesmithError, type Warning } from '../errors.ts'
import { makeFolder } from '../make-folder.ts'
import { adapterConfigFile, adapterWeightsFile } from './adapter/peft-config.ts'
import { indexFile } from './safetensors.ts'
import { isTokenizerFile } from './tokenizer-files.ts'

/** The record of a run (trainer/metrics.ts): where it lies, the checkpoint beside it is a run's own. */
const RECORD = 'metrics.jsonl'
const LOCK = '.run-lock'
const CHOOSE = 'choose another output'

export interface OutputCheck {
  /** Folder of the model that is trained; it must not be the output. */
  source?: string | undefined
  /** Free space that the run needs, in bytes. */
  bytes?: number
}

/**
 * Makes the output folder and tries to write there. Nothing that is there changes.
 *
 * @returns a warning where an earlier checkpoint of a run will be replaced
 * @throws ERR_OUTPUT_IS_SOURCE, ERR_OUTPUT_FOREIGN, ERR_OUTPUT_NOT_WRITABLE, ERR_OUTPUT_FULL
 */
export async function checkOutput(folder: string, { source, bytes = 0 }: OutputCheck = {}): Promise<Warning[]> {
  const target = resolve(folder)
  await refuseSource(target, source)
  const found = await stat(target).catch(() => undefined)
  if (found && !found.isDirectory()) {
    throw new TunesmithError('ERR_OUTPUT_NOT_WRITABLE', `output ${target} is a file, not a folder; ${CHOOSE}`)
  }
  const warnings = await foreignFiles(target)
  try {
    await makeFolder(target)
    const probe = join(target, `.write-probe-${process.pid}-${performance.now()}`)
    await writeFile(probe, 'probe', { flag: 'wx' })
    await unlink(probe)
  } catch (error) {
    throw asOutputError(error, target, 'cannot be written')
  }
  const { bavail, bsize } = await statfs(target)
  if (bavail * bsize >= bytes) return warnings
  throw new TunesmithError(
    'ERR_OUTPUT_FULL',
    `output folder ${target} needs ${megabytes(bytes)} MB, but its disk has ${megabytes(bavail * bsize)} MB left. ` +
      'Free some, or choose another output.',
  )
}

/** Without one of these a folder is nothing to any loader: removed first and put in place last. */
export function isLastFile(name: string): boolean {
  return name === 'config.json' || name === adapterConfigFile
}

/** Files that belong to a checkpoint: those of an earlier one are removed when another takes its place. */
export function isCheckpointFile(name: string): boolean {
  if (isLastFile(name) || name === 'generation_config.json' || name === indexFile) return true
  if (name === adapterWeightsFile) return true
  return /^model(-\d{5}-of-\d{5})?\.safetensors$/.test(name) || isTokenizerFile(name)
}

/** A checkpoint takes the place of an earlier one, file by file. Of anybody else's files that would be a loss. */
async function foreignFiles(target: string): Promise<Warning[]> {
  const names = await readdir(target).catch((): string[] => [])
  const replaced = names.filter(isCheckpointFile).sort()
  if (replaced.length === 0) return []
  if (names.includes(RECORD)) {
    const message = `output folder ${target} holds the checkpoint of an earlier run, which this run replaces when it ends`
    return [{ code: 'WARN_OUTPUT_REPLACED', message }]
  }
  throw new TunesmithError(
    'ERR_OUTPUT_FOREIGN',
    `output folder ${target} holds files that a checkpoint would replace and that no run has written there (it has no ` +
      `${RECORD}): ${replaced.join(', ')}. Remove them, or ${CHOOSE}`,
  )
}

/** @throws ERR_OUTPUT_IS_SOURCE where the two are one folder, also through links */
export async function refuseSource(folder: string, source: string | undefined): Promise<void> {
  if (source === undefined) return
  const [a, b] = await Promise.all([folder, source].map((path) => realpath(path).catch(() => resolve(path))))
  if (a !== b) return
  throw new TunesmithError(
    'ERR_OUTPUT_IS_SOURCE',
    `output folder ${resolve(folder)} is the folder of the model itself and would overwrite it. Choose another output.`,
  )
}

/**
 * Claims the output folder for this run, so that no two write there at once. A lock whose process is gone counts for
 * nothing; that of another machine (a shared disk) is believed.
 *
 * @returns what gives the folder free again
 * @throws ERR_OUTPUT_BUSY, ERR_OUTPUT_NOT_WRITABLE
 */
export async function lockOutput(folder: string): Promise<() => Promise<void>> {
  const path = join(folder, LOCK)
  const mine = JSON.stringify({ pid: process.pid, host: hostname(), run: performance.now() })
  for (;;) {
    try {
      await writeFile(path, mine, { flag: 'wx' })
      return () => rm(path, { force: true })
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw asOutputError(error, folder, 'cannot be written')
    }
    const text = await readFile(path, 'utf8').catch(() => '')
    const holder = lockHolder(text)
    if (holder === undefined) {
      await rm(path, { force: true })
      continue
    }
    throw new TunesmithError(
      'ERR_OUTPUT_BUSY',
      `another run is writing to output folder ${folder} (${holder}). Wait for its end, or ${CHOOSE}; if there is no such ` +
        `run, remove ${path}`,
    )
  }
}

/** Who holds a lock, in words; undefined where nobody does any more. */
function lockHolder(text: string): string | undefined {
  let lock: { pid?: unknown; host?: unknown }
  try {
    lock = JSON.parse(text)
  } catch {
    return undefined
  }
  if (typeof lock.pid !== 'number') return undefined
  if (lock.host !== hostname()) return `process ${lock.pid} on ${lock.host}`
  try {
    process.kill(lock.pid, 0)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return undefined
  }
  return lock.pid === process.pid ? 'in this process' : `process ${lock.pid}`
}

export function asOutputError(error: unknown, folder: string, what: string): unknown {
  if (!(error instanceof Error) || !('syscall' in error)) return error
  return new TunesmithError(
    'ERR_OUTPUT_NOT_WRITABLE',
    `output folder ${folder} ${what}: ${error.message}. Check its permissions and free space, or choose another output.`,
    { cause: error },
  )
}

function megabytes(bytes: number): number {
  return Math.ceil(bytes / 1e6)
}
