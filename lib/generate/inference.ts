/** A model that is run and not trained: opened with its tokenizer and template, then put on a device. */
import { type ChatTemplate, chooseTemplate } from '../chat/template.ts'
import { Tokenizer } from '../chat/tokenizer.ts'
import { engineAdapters } from '../checkpoint/adapter/adapter.ts'
import { type OpenModel, openModel } from '../checkpoint/adapter/open-model.ts'
import { loadAdapter } from '../checkpoint/adapter/weights.ts'
import { loadParameters } from '../checkpoint/load.ts'
import { checkVocabulary } from '../checkpoint/open.ts'
import type { Warning } from '../errors.ts'
import type { EngineOptions, NativeEngine } from '../native/addon.ts'
import { addon } from '../native/load.ts'
import { chooseDevice, type Device, type DeviceChoice } from '../trainer/device.ts'

export interface Inference {
  model: OpenModel
  tokenizer: Tokenizer
  template: ChatTemplate
  /** Why the template is not the model's own, where one stands in. */
  fallback: string | undefined
  device: Device
}

/** What an engine must have room for. */
export interface EngineSizes
  extends Pick<EngineOptions, 'maxTokens' | 'maxSupervised' | 'maxSequences' | 'cacheTokens' | 'cacheSequences'> {
  /** The longest conversation. */
  maxPositions: number
}

/** @throws TunesmithError the errors of openModel, Tokenizer.load, chooseTemplate and chooseDevice */
export async function openInference(
  name: string,
  { chatTemplate, ...choice }: DeviceChoice & { chatTemplate: string },
): Promise<Inference> {
  const model = await openModel(name)
  const tokenizer = await Tokenizer.load(model.tokenizerFolder, model.checkpoint.folder)
  checkVocabulary(model.checkpoint.spec, tokenizer.vocabSize)
  const { template, fallback } = await chooseTemplate(chatTemplate, tokenizer)
  return { model, tokenizer, template, fallback, device: chooseDevice(addon(), choice) }
}

/** An engine with the weights, those of an adapter beside them, and all that should be known about the model. */
export async function startEngine(
  { model, device }: Pick<Inference, 'model' | 'device'>,
  { maxPositions, ...sizes }: EngineSizes,
  signal?: AbortSignal,
): Promise<{ engine: NativeEngine; warnings: Warning[] }> {
  const { checkpoint, adapter } = model
  const engine = new (addon().Engine)({
    ...sizes,
    backend: device.backend,
    compute: device.compute,
    threads: device.threads,
    spec: { ...checkpoint.spec, maxPositions },
    ...(adapter && { adapters: engineAdapters(adapter) }),
    training: false,
    optimizer: 'sgd',
    recompute: false,
  })
  try {
    const loaded = await loadParameters(checkpoint, engine, { signal })
    if (adapter) await loadAdapter(adapter, engine)
    return { engine, warnings: [...model.warnings, ...loaded, ...device.warnings] }
  } catch (error) {
    engine.close()
    throw error
  }
}
