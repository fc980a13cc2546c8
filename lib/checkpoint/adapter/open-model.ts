/** A model to train or to generate with: a checkpoint, or an adapter with the checkpoint it belongs to. */
import { existsSync } from 'node:fs'
import { isAbsolute, join, resolve } from 'node:path'
import { TunesmithError, type Warning } from '../../errors.ts'
import { localModel } from '../../hub/local.ts'
import { parseHubRef } from '../../hub/ref.ts'
import type { HubHooks } from '../../hub/repo.ts'
import { type Checkpoint, openCheckpoint } from '../open.ts'
import { isFile } from '../safetensors.ts'
import type { Adapter } from './adapter.ts'
import { isAdapterFolder, openAdapter, openPeftConfig } from './open.ts'
import { adapterConfigFile, type BaseName } from './peft-config.ts'

export interface OpenModel {
  /** Of an adapter, its base. */
  checkpoint: Checkpoint
  adapter: Adapter | undefined
  /** Where the tokenizer is: the adapter's own, if it has one. */
  tokenizerFolder: string
  warnings: Warning[]
}

/**
 * Opens a folder, or what a hub id names: a checkpoint, or an adapter in PEFT's format. The base of an adapter is the
 * `base_model_name_or_path` of its configuration: a folder (absolute, or relative to the working directory or to the
 * adapter) or a model of the hub.
 *
 * @throws ERR_ADAPTER_BASE where the base is not found; the errors of openCheckpoint, openPeftConfig and openAdapter
 */
export async function openModel(name: string, hub: HubHooks = {}): Promise<OpenModel> {
  const folder = await localModel(name, hub)
  if (!(await isAdapterFolder(folder))) {
    const checkpoint = await openCheckpoint(folder)
    return { checkpoint, adapter: undefined, tokenizerFolder: checkpoint.folder, warnings: checkpoint.warnings }
  }
  const config = await openPeftConfig(folder)
  const base = baseOf(folder, config.base)
  const checkpoint = await openBase(folder, base, hub)
  const { adapter, warnings } = await openAdapter(folder, { ...config, base }, checkpoint)
  const own = await isFile(join(folder, 'tokenizer.json'))
  return {
    checkpoint,
    adapter,
    tokenizerFolder: own ? resolve(folder) : checkpoint.folder,
    warnings: [...checkpoint.warnings, ...warnings],
  }
}

/** What adapter_config.json is to call the model that `name` names: a folder by its path, a model of the hub by its id. */
export function baseName(name: string): BaseName {
  const ref = existsSync(name) || isAbsolute(name) ? undefined : parseHubRef(name, 'model')
  if (!ref) return { name: resolve(name), revision: undefined }
  return { name: ref.id, revision: ref.revision === 'main' ? undefined : ref.revision }
}

/** A path is made absolute, for the adapter may be saved again elsewhere. */
function baseOf(folder: string, base: BaseName): BaseName {
  if (isAbsolute(base.name)) return base
  const found = [resolve(base.name), resolve(folder, base.name)].find((path) => existsSync(path))
  return found === undefined ? base : { name: found, revision: undefined }
}

async function openBase(folder: string, { name, revision }: BaseName, hub: HubHooks): Promise<Checkpoint> {
  const where = join(resolve(folder), adapterConfigFile)
  if (!isAbsolute(name) && parseHubRef(name, 'model') === undefined) {
    throw new TunesmithError(
      'ERR_ADAPTER_BASE',
      `${where}: base_model_name_or_path is '${name}', which is neither a folder here nor a model of the hub (org/name). ` +
        'Set it to the folder of the model that the adapter was trained on.',
    )
  }
  if (isAbsolute(name) && !existsSync(name)) {
    throw new TunesmithError(
      'ERR_ADAPTER_BASE',
      `${where}: base_model_name_or_path is ${name}, which does not exist. Set it to where the model is that the adapter was trained on.`,
    )
  }
  return openCheckpoint(await localModel(revision === undefined ? name : `${name}@${revision}`, hub))
}
