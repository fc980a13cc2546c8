/**
 * Saving an adapter as the folder that PEFT loads: adapter_config.json, adapter_model.safetensors, and the tokenizer and
 * chat template that training used. It appears whole or not at all (see publish.ts).
 */
import { writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import type { Warning } from '../../errors.ts'
import type { RawObject } from '../json.ts'
import type { ModelDescription } from '../open.ts'
import { refuseSource } from '../output.ts'
import { publish } from '../publish.ts'
import { copyTokenizer } from '../tokenizer-files.ts'
import type { Adapter } from './adapter.ts'
import { adapterSize } from './modules.ts'
import { openAdapter, openPeftConfig } from './open.ts'
import { adapterConfigFile, writePeftConfig } from './peft-config.ts'
import { type AdapterSource, writeAdapterFile } from './weights.ts'

export interface SaveAdapterOptions {
  /** Where it goes; made if it does not exist. */
  folder: string
  adapter: Adapter
  /** What the engine holds of it. */
  sources: readonly AdapterSource[]
  model: Pick<ModelDescription, 'family' | 'spec' | 'folder'>
  tokenizerFolder: string
  /** Jinja text that training rendered with; undefined keeps what the tokenizer has. */
  chatTemplate?: string | undefined
}

/**
 * @returns warnings about what was left behind
 * @throws ERR_OUTPUT_IS_SOURCE, ERR_OUTPUT_NOT_WRITABLE, the errors of copyTokenizer
 */
export async function saveAdapter(options: SaveAdapterOptions): Promise<Warning[]> {
  const { adapter, model } = options
  const folder = resolve(options.folder)
  await refuseSource(folder, model.folder)
  await refuseSource(folder, adapter.stored?.folder)
  const warnings: Warning[] = []
  await publish(folder, async (staging) => {
    await writeAdapterFile(staging, options.sources)
    warnings.push(...(await copyTokenizer(options.tokenizerFolder, staging, options.chatTemplate)))
    // Last, so that a staging folder with it is complete.
    await writeFile(join(staging, adapterConfigFile), configOf(adapter).toString(), { flush: true })
    await openAdapter(staging, await openPeftConfig(staging), model)
  })
  return warnings
}

/** Bytes of an adapter on disk. */
export function adapterBytes({ modules, settings }: Adapter): number {
  return 4 * adapterSize(modules, settings.dora)
}

function configOf({ settings, modules, base, stored }: Adapter): RawObject {
  if (!stored) {
    // PEFT, too, writes out which modules 'all-linear' means.
    const targets = settings.targets === 'all-linear' ? modules.map(({ name }) => name) : settings.targets
    return writePeftConfig(
      settings,
      base,
      targets,
      modules.some(({ transposed }) => transposed),
    )
  }
  const config = stored.config.clone()
  config.set('base_model_name_or_path', base.name)
  config.set('lora_dropout', settings.dropout)
  config.set('inference_mode', true)
  return config
}
