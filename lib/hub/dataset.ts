/** A dataset by its hub id: the files of one side, in the cache. */
import { readFile } from 'node:fs/promises'
import { parse } from 'yaml'
import { containerOf } from '../data/containers/names.ts'
import { globExpression } from '../data/glob.ts'
import { TunesmithError } from '../errors.ts'
import { hubEnvironment } from './environment.ts'
import { type HubRef, parseHubRef, refName } from './ref.ts'
import { type HubHooks, Repo } from './repo.ts'

export type Side = 'train' | 'eval'

/** Words for a split in a file's path, as the `datasets` library looks for them. */
const SPLITS: Record<Side, RegExp> = {
  train: /(^|[/._-])(train|training)([/._-]|$)/i,
  eval: /(^|[/._-])(validation|valid|val|dev|eval|evaluation)([/._-]|$)/i,
}
const OTHER_SPLITS = /(^|[/._-])(test|testing|validation|valid|val|dev|eval|evaluation)([/._-]|$)/i
/** Names of a split in the card of a dataset. */
const CARD_SPLITS: Record<Side, readonly string[]> = {
  train: ['train', 'training'],
  eval: ['validation', 'valid', 'val', 'dev', 'eval', 'evaluation'],
}

/**
 * The local files of the dataset that `name` names (`org/name[@revision]`, `hf://datasets/org/name[@revision][/path or
 * glob]`), fetched where they are not in the cache. Without a path: the files of the side's split, as the dataset's card
 * or the names of its files tell it.
 *
 * @throws TunesmithError as Repo.open, `ERR_HUB_NOT_FOUND` for a name that is none, `ERR_DATA_NOT_FOUND` where the files
 * of the side cannot be told.
 */
export async function fetchDataset(
  name: string,
  side: Side,
  hooks: HubHooks = {},
  hub = hubEnvironment(),
): Promise<string[]> {
  const ref = parseHubRef(name, 'dataset')
  if (ref === undefined) {
    throw new TunesmithError(
      'ERR_HUB_NOT_FOUND',
      `${name} names no dataset of the hub; write org/name, or hf://datasets/org/name with @revision or /path behind`,
    )
  }
  const repo = await Repo.open(ref, hub, hooks)
  return repo.fetch(ref.path === undefined ? await filesOfSplit(repo, side) : filesOfPath(repo, ref.path))
}

function filesOfPath(repo: Repo, path: string): string[] {
  if (repo.paths.includes(path)) return [path]
  const pattern = globExpression(path.split('/'))
  const found = repo.paths.filter((file) => pattern.test(file)).sort()
  if (found.length > 0) return found
  throw notFound(repo, `${refName(repo.ref)} has no file ${path}`)
}

async function filesOfSplit(repo: Repo, side: Side): Promise<string[]> {
  const declared = await declaredFiles(repo, side)
  if (declared) return declared
  const readable = repo.paths.filter((path) => containerOf(path) !== undefined && !path.startsWith('.')).sort()
  const named = readable.filter((path) => SPLITS[side].test(path))
  if (named.length > 0) return oneKind(repo, named)
  const unnamed = readable.filter((path) => !OTHER_SPLITS.test(path))
  if (side === 'train' && unnamed.length > 0) return oneKind(repo, unnamed)
  throw notFound(repo, `It is not clear which files of ${refName(repo.ref)} are for ${side}`)
}

/** Rows that lie there in several formats, or several datasets in one repository, must not be mixed unasked. */
function oneKind(repo: Repo, paths: string[]): string[] {
  const kinds = new Set(paths.map((path) => `${containerOf(path)} ${path.split('/').slice(0, -1).join('/')}`))
  if (kinds.size === 1) return paths
  throw notFound(repo, `${refName(repo.ref)} has files of several folders or kinds`)
}

function notFound(repo: Repo, why: string): TunesmithError {
  const readable = repo.paths.filter((path) => containerOf(path) !== undefined).sort()
  const shown = `${readable.slice(0, 8).join(', ')}${readable.length > 8 ? `, ... (${readable.length} in all)` : ''}`
  const remedy = `name them: ${uri(repo.ref)}/<path or glob>`
  return new TunesmithError('ERR_DATA_NOT_FOUND', `${why}; ${remedy}. It has ${shown || 'no file that is read'}`)
}

function uri({ id, revision }: HubRef): string {
  return `hf://datasets/${id}${revision === 'main' ? '' : `@${revision.replaceAll('/', '%2F')}`}`
}

interface CardConfig {
  config_name?: string
  default?: boolean
  data_files?: string | CardFiles[]
}
interface CardFiles {
  split?: string
  path: string | string[]
}

/** What the head of README.md says (`configs`, as the `datasets` library reads it); undefined where it says nothing. */
async function declaredFiles(repo: Repo, side: Side): Promise<string[] | undefined> {
  const configs = await cardConfigs(repo)
  if (configs.length === 0) return undefined
  const config =
    configs.length === 1 ? configs[0]! : configs.find((one) => one.default === true || one.config_name === 'default')
  if (!config) {
    const names = configs.map(({ config_name: name }) => name).join(', ')
    throw notFound(repo, `${refName(repo.ref)} has the configurations ${names}, and none is the default`)
  }
  const files = config.data_files
  if (files === undefined) return undefined
  const entries: CardFiles[] = typeof files === 'string' ? [{ path: files }] : files
  const patterns = entries
    .filter(({ split = 'train' }) => CARD_SPLITS[side].includes(split))
    .flatMap(({ path }) => path)
    .map((pattern) => globExpression(pattern.split('/')))
  const found = repo.paths.filter((path) => patterns.some((pattern) => pattern.test(path))).sort()
  if (found.length > 0) return found
  throw notFound(repo, `The card of ${refName(repo.ref)} names no files for ${side}`)
}

async function cardConfigs(repo: Repo): Promise<CardConfig[]> {
  if (!repo.paths.includes('README.md')) return []
  const [path] = await repo.fetch(['README.md'])
  const head = /^---\r?\n([\s\S]*?)\r?\n---/.exec(await readFile(path!, 'utf8'))?.[1]
  if (head === undefined) return []
  try {
    const { configs } = (parse(head) ?? {}) as { configs?: unknown }
    return Array.isArray(configs)
      ? (configs as CardConfig[]).filter((one) => typeof one === 'object' && one !== null)
      : []
  } catch {
    return []
  }
}
