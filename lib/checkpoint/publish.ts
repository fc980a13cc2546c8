/**
 * Putting a folder of files in place so that a crash at any moment leaves either no checkpoint or a whole one.
 *
 * Everything is first written into a staging folder on the same file system and flushed to disk. Then:
 * - a folder that did not exist appears by one rename;
 * - in a folder that exists (the run's output, which also holds metrics and checkpoints/) the staging folder lies inside
 *   and its name says how far things are. `.checkpoint-partial` is being written and worth nothing. Once whole it becomes
 *   `.checkpoint-complete`; files of an earlier checkpoint are removed, config.json (of an adapter, adapter_config.json)
 *   first. `.checkpoint-moving` means that nothing of the earlier one is left; its files are renamed into place, the same
 *   one last.
 *
 * No loader accepts a folder without it, so the folder never looks whole while it holds a mixture, and whoever
 * opens it is told where the rest is.
 */
import { open, readdir, rename, rm, stat } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { makeFolder } from '../make-folder.ts'
import { asOutputError, isCheckpointFile, isLastFile } from './output.ts'

const partial = '.checkpoint-partial'
const complete = '.checkpoint-complete'
const moving = '.checkpoint-moving'

/**
 * Runs `write` on an empty staging folder and moves what it wrote to `folder`. If `write` fails, the staging folder is
 * removed and `folder` is as it was.
 *
 * @throws ERR_OUTPUT_NOT_WRITABLE for errors of the file system, else whatever `write` throws
 */
export async function publish(folder: string, write: (staging: string) => Promise<void>): Promise<void> {
  const target = resolve(folder)
  const exists = (await stat(target).catch(() => undefined)) !== undefined
  const staging = exists ? join(target, partial) : join(dirname(target), `.${basename(target)}.partial`)
  try {
    // Left by a process that died; nothing else writes there.
    await rm(staging, { recursive: true, force: true })
    await makeFolder(staging)
    try {
      await write(staging)
      await flushFolders(staging)
    } catch (error) {
      await rm(staging, { recursive: true, force: true })
      throw error
    }
    if (exists) await moveInto(target, staging)
    else await rename(staging, target)
    await flushFolder(dirname(target))
  } catch (error) {
    throw asOutputError(error, target, 'could not be written')
  }
}

/**
 * What an interrupted save has left in a folder without config.json, and what to do about it.
 *
 * @param entries names in the folder
 * @returns undefined where there was no such save
 */
export function interruptedSave(entries: readonly string[]): string | undefined {
  const cut = 'saving it was interrupted'
  if (entries.includes(complete))
    return `${cut}. The checkpoint is whole in its folder ${complete}: use that, or save it again.`
  if (entries.includes(moving))
    return `${cut}. Move the files of its folder ${moving} up into it: all that are missing are there.`
  return entries.includes(partial) ? `${cut} before it was whole. Save it again.` : undefined
}

async function moveInto(target: string, staging: string): Promise<void> {
  // What an earlier interruption has left is kept until there is something whole to replace it.
  await rm(join(target, complete), { recursive: true, force: true })
  await rm(join(target, moving), { recursive: true, force: true })
  await rename(staging, join(target, complete))
  await flushFolder(target)
  for (const name of (await readdir(target)).filter(isLastFile)) await rm(join(target, name))
  await flushFolder(target)
  for (const name of await readdir(target)) {
    if (isCheckpointFile(name)) await rm(join(target, name), { recursive: true })
  }
  await flushFolder(target)
  await rename(join(target, complete), join(target, moving))
  const place = (name: string) => rename(join(target, moving, name), join(target, name))
  const names = await readdir(join(target, moving))
  for (const name of names) if (!isLastFile(name)) await place(name)
  await flushFolder(target)
  for (const name of names) if (isLastFile(name)) await place(name)
  await rm(join(target, moving), { recursive: true })
  await flushFolder(target)
}

async function flushFolders(folder: string): Promise<void> {
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    if (entry.isDirectory()) await flushFolders(join(folder, entry.name))
  }
  await flushFolder(folder)
}

/** Makes the names in a folder as durable as the files' contents. */
async function flushFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
