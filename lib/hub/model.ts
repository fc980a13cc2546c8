/** A model by its hub id: the files that make up a checkpoint, or an adapter in PEFT's format, in the cache. */
import { readFile } from 'node:fs/promises'
import { adapterConfigFile, adapterWeightsFile } from '../checkpoint/adapter/peft-config.ts'
import { isTokenizerFile } from '../checkpoint/tokenizer-files.ts'
import { TunesmithError } from '../errors.ts'
import { hubEnvironment } from './environment.ts'
import { parseHubRef, refName } from './ref.ts'
import { type HubHooks, Repo } from './repo.ts'

const CONFIGS = ['config.json', 'generation_config.json', adapterConfigFile]
const WHOLE = 'model.safetensors'
const INDEX = 'model.safetensors.index.json'

/**
 * The local folder of the model that `name` names (`org/name[@revision]` or `hf://org/name[@revision]`), fetched where it
 * is not in the cache.
 *
 * @throws TunesmithError as Repo.open, `ERR_HUB_NOT_FOUND` for a name that is none, `ERR_WEIGHTS_NOT_FOUND` for a
 * repository without safetensors.
 */
export async function fetchModel(name: string, hooks: HubHooks = {}, hub = hubEnvironment()): Promise<string> {
  const ref = parseHubRef(name, 'model')
  if (ref === undefined || ref.path !== undefined) {
    throw new TunesmithError(
      'ERR_HUB_NOT_FOUND',
      `${name} names no model of the hub; write org/name or org/name@revision`,
    )
  }
  const repo = await Repo.open(ref, hub, hooks)
  const side = repo.paths.filter((path) => CONFIGS.includes(path) || isTokenizerFile(path.split('/')[0]!))
  await repo.fetch(side)
  await repo.fetch(await weightFiles(repo))
  return repo.folder
}

/** Of a repository that keeps its weights twice, in several formats or precisions, those that are loaded. */
async function weightFiles(repo: Repo): Promise<string[]> {
  if (repo.paths.includes(adapterConfigFile) && !repo.paths.includes('config.json')) {
    if (repo.paths.includes(adapterWeightsFile)) return [adapterWeightsFile]
    throw new TunesmithError(
      'ERR_WEIGHTS_NOT_FOUND',
      `${refName(repo.ref)} is an adapter without ${adapterWeightsFile}; adapters are read from safetensors`,
    )
  }
  if (repo.paths.includes(WHOLE)) return [WHOLE]
  if (!repo.paths.includes(INDEX)) {
    const others = repo.paths.filter((path) => /\.(bin|pt|pth|gguf|safetensors|msgpack|h5)$/.test(path)).slice(0, 3)
    throw new TunesmithError(
      'ERR_WEIGHTS_NOT_FOUND',
      `${refName(repo.ref)} has neither ${WHOLE} nor ${INDEX}${others.length > 0 ? ` (it has ${others.join(', ')})` : ''}; ` +
        'weights are read from safetensors in the layout of Transformers',
    )
  }
  const [index] = await repo.fetch([INDEX])
  const shards = shardNames(await readFile(index!, 'utf8'))
  const missing = shards.find((shard) => !repo.paths.includes(shard))
  if (missing === undefined) return shards
  throw new TunesmithError('ERR_SHARD_MISSING', `${refName(repo.ref)}: ${INDEX} names ${missing}, which is not there`)
}

/** A broken index is told with all it lacks when the folder is opened. */
function shardNames(text: string): string[] {
  try {
    const { weight_map: map } = JSON.parse(text) as { weight_map: Record<string, string> }
    return [...new Set(Object.values(map))].sort()
  } catch {
    return []
  }
}
