/** Loading a checkpoint to generate with. */
import type { BackendName } from '../native/addon.ts'
import { asTunesmithError } from '../native/error.ts'
import { openInference, startEngine } from './inference.ts'
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
 * @throws TunesmithError `ERR_UNKNOWN_OPTION`, `ERR_INVALID_OPTION`; the errors of openInference
 */
export async function loadModel(folder: string, options: LoadModelOptions = {}): Promise<Model> {
  checkLoadOptions(options)
  const { device = 'auto', precision = 'auto', threads = 0, chatTemplate = 'model', batchSize = 1 } = options
  const open = await openInference(folder, { device, precision, threads, chatTemplate })
  const { checkpoint, adapter } = open.model
  const { maxPositions } = checkpoint.spec
  const maxContext = Math.min(options.maxContext ?? defaultContext, maxPositions)
  try {
    const { engine, warnings } = await startEngine(open, {
      maxPositions: maxContext,
      maxTokens: Math.max(Math.min(prefillTokens, maxContext), batchSize),
      maxSupervised: batchSize,
      maxSequences: batchSize,
      cacheTokens: maxContext,
      cacheSequences: batchSize,
    })
    if (open.fallback !== undefined) warnings.push({ code: 'WARN_TEMPLATE_FALLBACK', message: open.fallback })
    const parts = { ...open, folder: adapter?.stored?.folder ?? checkpoint.folder, maxContext, batchSize, warnings }
    return new Model(parts, engine, maxPositions)
  } catch (error) {
    throw asTunesmithError(error)
  }
}
