/** From what the options name to what lies on this machine: a local path wins, else the hub is asked. */
import { existsSync } from 'node:fs'
import { isAbsolute } from 'node:path'
import type { DataEntry } from '../data/paths.ts'
import { TunesmithError } from '../errors.ts'
import { fetchDataset, type Side } from './dataset.ts'
import { hubEnvironment } from './environment.ts'
import { fetchModel } from './model.ts'
import { isHubUri, parseHubRef, type RepoType } from './ref.ts'
import type { HubHooks } from './repo.ts'

/** Whether `name` is to be looked for on the hub: it can be the name of a repository, and no file has that name. */
export function isOnHub(name: string, type: RepoType): boolean {
  if (isHubUri(name)) return true
  return !isAbsolute(name) && parseHubRef(name, type) !== undefined && !existsSync(name)
}

/**
 * The folder of a model that is a folder or a hub id.
 *
 * @throws TunesmithError as fetchModel
 */
export async function localModel(name: string, hooks: HubHooks = {}, hub = hubEnvironment()): Promise<string> {
  if (!isOnHub(name, 'model')) return name
  return orExplain(name, 'folder', () => fetchModel(name, hooks, hub))
}

/**
 * `entries` with the files of those that are on the hub.
 *
 * @throws TunesmithError as fetchDataset
 */
export async function localData(
  entries: readonly DataEntry[],
  side: Side,
  hooks: HubHooks = {},
  hub = hubEnvironment(),
): Promise<DataEntry[]> {
  const local: DataEntry[] = []
  for (const entry of entries) {
    if (!isOnHub(entry.path, 'dataset')) local.push(entry)
    else {
      const files = await orExplain(entry.path, 'file', () => fetchDataset(entry.path, side, hooks, hub))
      local.push({ ...entry, files })
    }
  }
  return local
}

const OF_THE_HUB = ['ERR_HUB_NOT_FOUND', 'ERR_HUB_ACCESS', 'ERR_HUB_UNREACHABLE', 'ERR_HUB_DOWNLOAD']

/** A plain name may have been meant as a path: then both failures are told. */
async function orExplain<T>(name: string, what: string, fetch: () => Promise<T>): Promise<T> {
  try {
    return await fetch()
  } catch (error) {
    if (isHubUri(name) || !(error instanceof TunesmithError) || !OF_THE_HUB.includes(error.code)) throw error
    const message = `There is no ${what} ${name} here, and as a name of the hub: ${error.message}`
    throw new TunesmithError(error.code, message, { cause: error })
  }
}
