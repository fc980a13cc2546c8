/** An adapter and its base as one checkpoint, which needs neither PEFT nor the adapter any more. */
import { collate } from '../batch/collate.ts'
import { chooseTemplate } from '../chat/template.ts'
import { Tokenizer } from '../chat/tokenizer.ts'
import { engineAdapters } from '../checkpoint/adapter/adapter.ts'
import { type OpenModel, openModel } from '../checkpoint/adapter/open-model.ts'
import { loadAdapter } from '../checkpoint/adapter/weights.ts'
import { loadParameters } from '../checkpoint/load.ts'
import { type Checkpoint, checkVocabulary, openCheckpoint } from '../checkpoint/open.ts'
import { checkOutput, lockOutput, refuseSource } from '../checkpoint/output.ts'
import { checkpointBytes, saveCheckpoint } from '../checkpoint/save.ts'
import { TunesmithError, type Warning } from '../errors.ts'
import { encodePrompt } from '../generate/prompt.ts'
import type { EngineOptions, MicroBatch, NativeEngine, StorageType } from '../native/addon.ts'
import { asTunesmithError } from '../native/error.ts'
import { addon } from '../native/load.ts'
import { chooseDevice } from '../trainer/device.ts'
import { builtinPrompts, readPrompts } from './prompts.ts'

export interface MergeOptions {
  /** Adapter folder, or the id of an adapter on the hub. */
  adapter: string
  /** Where the checkpoint goes. */
  output: string
  /** Type of the merged weights. Default: the base's. */
  dtype?: 'float32' | 'float16' | 'bfloat16' | undefined
  /**
   * How the base was quantised when the adapter was trained (QLoRA): it is merged into what that leaves of the weights, for
   * which it was made. Default: not at all.
   */
  quantization?: 'nf4' | undefined
  /** With `quantization`, whether its scales were quantised too. Default true. */
  doubleQuantization?: boolean | undefined
  /** File of prompts to compare on, one per line. Default: a handful of built-in ones. */
  prompts?: string | undefined
  device?: 'auto' | 'cuda' | 'cpu' | 'reference' | undefined
  threads?: number | undefined
  signal?: AbortSignal | undefined
}

export interface MergeResult {
  /** Absolute. */
  output: string
  dtype: StorageType
  warnings: Warning[]
  comparison: Comparison
}

/** The merged checkpoint as it was written against base and adapter apart, both in float32. */
export interface Comparison {
  prompts: number
  /** Positions of all prompts, at each of which the logits of the whole vocabulary were compared. */
  tokens: number
  /** Largest |difference| of two logits. */
  largestDifference: number
  /** Largest |logit|, to measure it by. */
  largestLogit: number
  /** Positions whose most likely token is another one. */
  changed: number
}

/**
 * Merges in float32, saves as a checkpoint of the base's family, loads that again, and compares.
 *
 * @throws ERR_ADAPTER_CONFIG where `adapter` is no adapter; the errors of openModel, checkOutput, saveCheckpoint
 */
export async function mergeAdapter(options: MergeOptions): Promise<MergeResult> {
  const { signal } = options
  const open = await openModel(options.adapter)
  const { checkpoint, adapter } = open
  if (!adapter) {
    throw new TunesmithError(
      'ERR_ADAPTER_CONFIG',
      `${options.adapter} is a whole model, not an adapter: there is nothing to merge`,
    )
  }
  const dtype = options.dtype ?? checkpoint.sourceDtype
  await refuseSource(options.output, adapter.stored!.folder)
  const bytes = checkpointBytes(checkpoint, dtype)
  const warnings = [...open.warnings, ...(await checkOutput(options.output, { source: checkpoint.folder, bytes }))]
  const tokenizer = await Tokenizer.load(open.tokenizerFolder)
  checkVocabulary(checkpoint.spec, tokenizer.vocabSize)
  const { template, fallback } = await chooseTemplate('model', tokenizer)
  if (fallback !== undefined) warnings.push({ code: 'WARN_TEMPLATE_FALLBACK', message: fallback })
  const texts = options.prompts === undefined ? builtinPrompts : await readPrompts(options.prompts)
  const batches: MicroBatch[] = []
  for (const content of texts) {
    const ids = await encodePrompt([{ role: 'user', content }], { tokenizer, template })
    batches.push(promptBatch(ids, checkpoint, content))
  }

  const { backend, warnings: ofDevice } = chooseDevice(addon(), {
    device: options.device ?? 'auto',
    precision: 'float32',
    threads: options.threads ?? 0,
  })
  warnings.push(...ofDevice)
  const engineOptions = engineFor(backend, options.threads ?? 0, open, batches)
  const unlock = await lockOutput(options.output)
  try {
    const { quantization, doubleQuantization = true } = options
    const first: EngineOptions = {
      ...engineOptions,
      adapters: engineAdapters(adapter),
      ...(quantization && { quantization, doubleQuantization, dequantized: true }),
    }
    const apart = await withEngine(first, signal, async (engine) => {
      warnings.push(...(await loadParameters(checkpoint, engine, { signal })))
      await loadAdapter(adapter, engine, signal)
      const logits = await logitsOf(engine, batches)
      await engine.mergeAdapters()
      const saved = await saveCheckpoint({
        folder: options.output,
        model: checkpoint,
        engine,
        dtype,
        tokenizerFolder: tokenizer.folder,
        stopTokenIds: template.stopTokens.map(({ id }) => id),
        signal,
      })
      warnings.push(...saved.warnings)
      return { logits, folder: saved.folder }
    })
    const merged = await withEngine(engineOptions, signal, async (engine) => {
      await loadParameters(await openCheckpoint(apart.folder), engine, { signal })
      return logitsOf(engine, batches)
    })
    return {
      output: apart.folder,
      dtype,
      warnings,
      comparison: compare(apart.logits, merged, checkpoint.spec.vocabSize),
    }
  } finally {
    await unlock()
  }
}

function promptBatch(ids: Int32Array, { spec }: Checkpoint, text: string): MicroBatch {
  if (ids.length > spec.maxPositions) {
    const beginning = JSON.stringify(text.slice(0, 40))
    throw new TunesmithError(
      'ERR_CONTEXT_FULL',
      `the prompt that begins with ${beginning} has ${ids.length} tokens, and the model's context holds ${spec.maxPositions}`,
    )
  }
  return collate([{ ids, weights: new Float32Array(ids.length), source: { file: 'prompts', line: 1 } }])
}

function engineFor(
  backend: EngineOptions['backend'],
  threads: number,
  { checkpoint }: OpenModel,
  batches: readonly MicroBatch[],
): EngineOptions {
  const longest = Math.max(...batches.map(({ tokens }) => tokens.length))
  return {
    backend,
    compute: 'float32',
    threads,
    spec: { ...checkpoint.spec, maxPositions: longest },
    training: false,
    optimizer: 'sgd',
    recompute: false,
    maxTokens: longest,
    maxSupervised: longest,
    maxSequences: 1,
    cacheTokens: 0,
  }
}

async function withEngine<T>(
  options: EngineOptions,
  signal: AbortSignal | undefined,
  use: (engine: NativeEngine) => Promise<T>,
): Promise<T> {
  const engine = new (addon().Engine)(options)
  const cancel = () => engine.cancel()
  signal?.addEventListener('abort', cancel, { once: true })
  try {
    return await use(engine)
  } catch (error) {
    signal?.throwIfAborted()
    throw asTunesmithError(error)
  } finally {
    signal?.removeEventListener('abort', cancel)
    engine.close()
  }
}

async function logitsOf(engine: NativeEngine, batches: readonly MicroBatch[]): Promise<Float32Array[]> {
  const logits: Float32Array[] = []
  for (const batch of batches) logits.push(await engine.logits(batch))
  return logits
}

function compare(apart: readonly Float32Array[], merged: readonly Float32Array[], vocabulary: number): Comparison {
  const result = { prompts: apart.length, tokens: 0, largestDifference: 0, largestLogit: 0, changed: 0 }
  for (const [index, before] of apart.entries()) {
    const after = merged[index]!
    for (let start = 0; start < before.length; start += vocabulary) {
      let [likelyBefore, likelyAfter] = [start, start]
      for (let i = start; i < start + vocabulary; i++) {
        result.largestDifference = Math.max(result.largestDifference, Math.abs(before[i]! - after[i]!))
        result.largestLogit = Math.max(result.largestLogit, Math.abs(before[i]!))
        if (before[i]! > before[likelyBefore]!) likelyBefore = i
        if (after[i]! > after[likelyAfter]!) likelyAfter = i
      }
      result.tokens++
      if (likelyBefore !== likelyAfter) result.changed++
    }
  }
  return result
}
