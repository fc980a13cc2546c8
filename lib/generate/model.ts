/** A checkpoint that can be talked to: greedy and sampled generation with a key/value cache. */
import { type ChatTemplate, chooseTemplate } from '../chat/template.ts'
import { Tokenizer } from '../chat/tokenizer.ts'
import { loadParameters } from '../checkpoint/load.ts'
import { type Checkpoint, checkVocabulary, openCheckpoint } from '../checkpoint/open.ts'
import type { Message } from '../data/conversation.ts'
import { TunesmithError, type Warning } from '../errors.ts'
import { localModel } from '../hub/local.ts'
import type { BackendName, NativeEngine } from '../native/addon.ts'
import { asTunesmithError } from '../native/error.ts'
import { addon } from '../native/load.ts'
import { chooseDevice, type Device } from '../trainer/device.ts'
import { checkGenerateOptions, checkLoadOptions, checkMessages } from './options.ts'
import { type SamplingOptions, sampleToken } from './sampling.ts'
import { TextStream } from './text-stream.ts'

export interface LoadModelOptions {
  /** Default 'auto': the fastest that is there. */
  device?: 'auto' | BackendName | undefined
  /** Default 'auto': bfloat16 where the device is fast at it, else float32. */
  precision?: 'auto' | 'float32' | 'bfloat16' | undefined
  /** CPU threads. Default: every core this process may use. */
  threads?: number | undefined
  /** Most tokens of prompt and completion together. Default: the model's context, at most 4096. */
  maxContext?: number | undefined
  /** 'model' (the default), a built-in name, or the path of a Jinja file. */
  chatTemplate?: string | undefined
}

export interface GenerateOptions extends SamplingOptions {
  /** Default 256. */
  maxNewTokens?: number | undefined
  signal?: AbortSignal | undefined
  /** Called with each piece of text as it comes. */
  onToken?: ((piece: string) => void) | undefined
}

export interface Completion {
  /** Without the stop token. */
  text: string
  /** Generated ids, the stop token included. */
  tokens: Int32Array
  /** 'stop': the model ended by itself; 'length': maxNewTokens or the context was reached. */
  finishReason: 'stop' | 'length'
  promptTokens: number
}

/** Default of `maxContext` where the model allows more: the cache of a long context is large. */
const defaultContext = 4096
/** Tokens of a prompt that go through the model at once. */
const prefillTokens = 512

export class Model {
  readonly folder: string
  readonly device: Device
  readonly tokenizer: Tokenizer
  readonly template: ChatTemplate
  readonly maxContext: number
  /** What should be known about the checkpoint, its template or the device. */
  readonly warnings: readonly Warning[]
  readonly #engine: NativeEngine
  readonly #maxPositions: number
  #busy = false

  /** Use loadModel(). */
  constructor(
    parts: Pick<Model, 'folder' | 'device' | 'tokenizer' | 'template' | 'maxContext' | 'warnings'>,
    engine: NativeEngine,
    maxPositions: number,
  ) {
    this.folder = parts.folder
    this.device = parts.device
    this.tokenizer = parts.tokenizer
    this.template = parts.template
    this.maxContext = parts.maxContext
    this.warnings = parts.warnings
    this.#engine = engine
    this.#maxPositions = maxPositions
  }

  /** Token ids of a prompt: a text as it is (with bos where the tokenizer adds it), messages through the chat template. */
  async encode(prompt: string | readonly Message[]): Promise<Int32Array> {
    if (typeof prompt !== 'string') {
      const text = this.template.render(checkMessages(prompt), { addGenerationPrompt: true })
      return (await this.tokenizer.encode(text)).ids
    }
    const { ids } = await this.tokenizer.encode(prompt)
    const { bos, addsBos } = this.tokenizer
    return addsBos && bos ? Int32Array.from([bos.id, ...ids]) : ids
  }

  /**
   * Completes a text, or answers messages.
   *
   * @throws TunesmithError `ERR_UNKNOWN_OPTION`, `ERR_INVALID_OPTION`, `ERR_INVALID_PROMPT`, `ERR_EMPTY_PROMPT`, `ERR_CONTEXT_FULL` where the prompt leaves no room, `ERR_BUSY` while
   * another completion runs; the signal's reason
   */
  async generate(prompt: string | readonly Message[], options: GenerateOptions = {}): Promise<Completion> {
    checkGenerateOptions(options)
    if (this.#busy)
      throw new TunesmithError('ERR_BUSY', 'this model is generating already; wait for it, or load another')
    this.#busy = true
    const { signal } = options
    const cancel = () => this.#engine.cancel()
    try {
      signal?.throwIfAborted()
      signal?.addEventListener('abort', cancel, { once: true })
      return await this.#complete(await this.encode(prompt), this.#stops(typeof prompt !== 'string'), options)
    } catch (error) {
      signal?.throwIfAborted()
      throw asTunesmithError(error)
    } finally {
      signal?.removeEventListener('abort', cancel)
      this.#busy = false
    }
  }

  /** Frees the weights; generating ends. */
  close(): void {
    this.#engine.close()
  }

  async #complete(prompt: Int32Array, stops: ReadonlySet<number>, options: GenerateOptions): Promise<Completion> {
    const { maxNewTokens = 256, onToken, signal } = options
    if (prompt.length === 0) throw new TunesmithError('ERR_EMPTY_PROMPT', 'the prompt has no tokens')
    if (prompt.length >= this.maxContext) {
      throw new TunesmithError(
        'ERR_CONTEXT_FULL',
        `the prompt has ${prompt.length} tokens, and the context holds ${this.maxContext}. Shorten it` +
          (this.maxContext < this.#maxPositions ? `, or raise maxContext (up to ${this.#maxPositions})` : ''),
      )
    }
    const tokens: number[] = []
    const stream = new TextStream(this.tokenizer, onToken)
    let finishReason: Completion['finishReason'] = 'length'
    let logits = await this.#engine.extend(prompt, 0)
    while (tokens.length < maxNewTokens) {
      signal?.throwIfAborted()
      const token = sampleToken(logits, options, tokens.length)
      tokens.push(token)
      if (stops.has(token)) {
        finishReason = 'stop'
        break
      }
      await stream.push(token)
      const position = prompt.length + tokens.length - 1
      if (tokens.length >= maxNewTokens || position >= this.maxContext) break
      logits = await this.#engine.extend(Int32Array.of(token), position)
    }
    return { text: await stream.end(), tokens: Int32Array.from(tokens), finishReason, promptTokens: prompt.length }
  }

  #stops(chat: boolean): ReadonlySet<number> {
    const stops = chat ? [...this.template.stopTokens, ...this.tokenizer.stops] : this.tokenizer.stops
    return new Set(stops.map(({ id }) => id))
  }
}

/**
 * Loads a Hugging Face folder, or a model of the hub (`org/name[@revision]`) where no such folder exists, for generation.
 *
 * @throws TunesmithError `ERR_UNKNOWN_OPTION`, `ERR_INVALID_OPTION`; the errors of localModel, openCheckpoint, Tokenizer.load, chooseTemplate and chooseDevice
 */
export async function loadModel(folder: string, options: LoadModelOptions = {}): Promise<Model> {
  checkLoadOptions(options)
  const { device = 'auto', precision = 'auto', threads = 0, chatTemplate = 'model' } = options
  const checkpoint = await openCheckpoint(await localModel(folder))
  const tokenizer = await Tokenizer.load(checkpoint.folder)
  checkVocabulary(checkpoint.spec, tokenizer.vocabSize)
  const { template, fallback } = await chooseTemplate(chatTemplate, tokenizer)
  const chosen = chooseDevice(addon(), { device, precision, threads })
  const { maxPositions } = checkpoint.spec
  const maxContext = Math.min(options.maxContext ?? defaultContext, maxPositions)
  let engine: NativeEngine | undefined
  try {
    engine = openEngine(checkpoint, chosen, maxContext)
    const warnings = [...checkpoint.warnings, ...(await loadParameters(checkpoint, engine)), ...chosen.warnings]
    if (fallback !== undefined) warnings.push({ code: 'WARN_TEMPLATE_FALLBACK', message: fallback })
    const parts = { folder: checkpoint.folder, device: chosen, tokenizer, template, maxContext, warnings }
    return new Model(parts, engine, maxPositions)
  } catch (error) {
    engine?.close()
    throw asTunesmithError(error)
  }
}

function openEngine({ spec }: Checkpoint, { backend, compute, threads }: Device, maxContext: number): NativeEngine {
  return new (addon().Engine)({
    backend,
    compute,
    threads,
    spec: { ...spec, maxPositions: maxContext },
    training: false,
    optimizer: 'sgd',
    recompute: false,
    maxTokens: Math.min(prefillTokens, maxContext),
    maxSupervised: 1,
    maxSequences: 1,
    cacheTokens: maxContext,
  })
}
