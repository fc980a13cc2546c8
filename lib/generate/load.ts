/** Loading a checkpoint to generate with. */
import { chooseTemplate } from '../chat/template.ts'
import { Tokenizer } from '../chat/tokenizer.ts'
import { engineAdapters } from '../checkpoint/adapter/adapter.ts'
import { type OpenModel, openModel } from '../checkpoint/adapter/open-model.ts'
import { loadAdapter } from '../checkpoint/adapter/weights.ts'
import { loadParameters } from '../checkpoint/load.ts'
import { checkVocabulary } from '../checkpoint/open.ts'
import type { BackendName, NativeEngine } from '../native/addon.ts'
import { asTunesmithError } from '../native/error.ts'
import { addon } from '../native/load.ts'
import { chooseDevice, type Device } from '../trainer/device.ts'
import { Model } from './model.ts'
import { checkLoadOptions } from './options.ts'

export interface LoadModelOptions {
  /** Default 'auto': the fastest that is there. */
  device?: 'auto' | BackendName | undefined
  /** Default 'auto': bfloat16 where the device is fast at it, else float32. */
  precision?: 'auto' | 'float32' | 'bfloat16' | undefined
  /** CPU threads. Default: every core this process may use. */
  threads?: number | undefined
  /** Most tokens of prompt and completion together. Default: the model's context, at most 4096. */
  maxContext?: number | undefined
  /** Prompts that generateAll() answers at once; each has a cache of `maxContext` tokens. Default 1. */
  batchSize?: number | undefined
  /** 'model' (the default), a built-in name, or the path of a Jinja file. */
  chatTemplate?: string | undefined
}

/** Default of `maxContext` where the model allows more: the cache of a long context is large. */
const defaultContext = 4096
/** Tokens of a prompt that go through the model at once. */
const prefillTokens = 512

/**
 * Loads a Hugging Face folder, or a model of the hub (`org/name[@revision]`) where no such folder exists, for generation.
 * An adapter in PEFT's format is loaded beside its base.
 *
 * @throws TunesmithError `ERR_UNKNOWN_OPTION`, `ERR_INVALID_OPTION`; the errors of openModel, Tokenizer.load, chooseTemplate and chooseDevice
 */
export async function loadModel(folder: string, options: LoadModelOptions = {}): Promise<Model> {
  checkLoadOptions(options)
  const { device = 'auto', precision = 'auto', threads = 0, chatTemplate = 'model', batchSize = 1 } = options
  const open = await openModel(folder)
  const { checkpoint, adapter, tokenizerFolder } = open
  const tokenizer = await Tokenizer.load(tokenizerFolder)
  checkVocabulary(checkpoint.spec, tokenizer.vocabSize)
  const { template, fallback } = await chooseTemplate(chatTemplate, tokenizer)
  const chosen = chooseDevice(addon(), { device, precision, threads })
  const { maxPositions } = checkpoint.spec
  const maxContext = Math.min(options.maxContext ?? defaultContext, maxPositions)
  let engine: NativeEngine | undefined
  try {
    engine = openEngine(open, chosen, maxContext, batchSize)
    const warnings = [...open.warnings, ...(await loadParameters(checkpoint, engine)), ...chosen.warnings]
    if (adapter) await loadAdapter(adapter, engine)
    if (fallback !== undefined) warnings.push({ code: 'WARN_TEMPLATE_FALLBACK', message: fallback })
    const parts = {
      folder: adapter?.stored?.folder ?? checkpoint.folder,
      device: chosen,
      tokenizer,
      template,
      maxContext,
      batchSize,
      warnings,
    }
    return new Model(parts, engine, maxPositions)
  } catch (error) {
    engine?.close()
    throw asTunesmithError(error)
  }
}

function openEngine(
  { checkpoint, adapter }: OpenModel,
  { backend, compute, threads }: Device,
  maxContext: number,
  batchSize: number,
): NativeEngine {
  return new (addon().Engine)({
    backend,
    compute,
    threads,
    spec: { ...checkpoint.spec, maxPositions: maxContext },
    ...(adapter && { adapters: engineAdapters(adapter) }),
    training: false,
    optimizer: 'sgd',
    recompute: false,
    maxTokens: Math.max(Math.min(prefillTokens, maxContext), batchSize),
    maxSupervised: batchSize,
    maxSequences: batchSize,
    cacheTokens: maxContext,
    cacheSequences: batchSize,
  })
}
