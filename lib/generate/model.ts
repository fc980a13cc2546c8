/** A checkpoint that can be talked to: greedy and sampled generation with a key/value cache. */
import { type CallFormat, callFormat } from '../chat/call-format.ts'
import type { ChatTemplate } from '../chat/template.ts'
import type { Tokenizer } from '../chat/tokenizer.ts'
import { TunesmithError, type Warning } from '../errors.ts'
import type { NativeEngine } from '../native/addon.ts'
import { asTunesmithError } from '../native/error.ts'
import type { Device } from '../trainer/device.ts'
import { Answer } from './answer.ts'
import { assistantTurn, type Completion, type GenerateOptions } from './completion.ts'
import { checkGenerateOptions } from './options.ts'
import { encodePrompt, type Prompt } from './prompt.ts'
import { grow, growAll, type Job } from './run.ts'

export class Model {
  readonly folder: string
  readonly device: Device
  readonly tokenizer: Tokenizer
  readonly template: ChatTemplate
  readonly maxContext: number
  /** Prompts that generateAll() answers at once. */
  readonly batchSize: number
  /** What should be known about the checkpoint, its template or the device. */
  readonly warnings: readonly Warning[]
  readonly #engine: NativeEngine
  readonly #maxPositions: number
  readonly #calls: CallFormat | undefined
  #busy = false

  /** Use loadModel(). */
  constructor(
    parts: Pick<Model, 'folder' | 'device' | 'tokenizer' | 'template' | 'maxContext' | 'batchSize' | 'warnings'>,
    engine: NativeEngine,
    maxPositions: number,
  ) {
    this.folder = parts.folder
    this.device = parts.device
    this.tokenizer = parts.tokenizer
    this.template = parts.template
    this.maxContext = parts.maxContext
    this.batchSize = parts.batchSize
    this.warnings = parts.warnings
    this.#engine = engine
    this.#maxPositions = maxPositions
    this.#calls = callFormat(parts.template)
  }

  /** Token ids of a prompt: a text as it is (with bos where the tokenizer adds it), messages through the chat template. */
  async encode(prompt: Prompt, tools?: readonly unknown[]): Promise<Int32Array> {
    return encodePrompt(prompt, this, tools)
  }

  /**
   * Completes a text, or answers messages.
   *
   * @throws TunesmithError `ERR_UNKNOWN_OPTION`, `ERR_INVALID_OPTION`, `ERR_INVALID_PROMPT`, `ERR_TEMPLATE`,
   * `ERR_EMPTY_PROMPT`, `ERR_CONTEXT_FULL` where the prompt leaves no room, `ERR_BUSY` while another completion runs,
   * `ERR_NON_FINITE_LOGITS`; the signal's reason
   */
  async generate(prompt: Prompt, options: GenerateOptions = {}): Promise<Completion> {
    checkGenerateOptions(options)
    const { onToken } = options
    const pieces = this.#run(prompt, options, onToken !== undefined)
    try {
      for (;;) {
        const { value, done } = await pieces.next()
        if (done) return value
        onToken?.(value)
      }
    } finally {
      // Where onToken has thrown.
      await pieces.return(undefined as never)
    }
  }

  /**
   * The pieces of a completion as they come; what generate() resolves with is the iterator's return value. Work goes on
   * only as pieces are asked for, and leaving the loop ends it.
   *
   * ```ts
   * for await (const piece of model.stream(messages)) process.stdout.write(piece)
   * ```
   *
   * @throws TunesmithError as generate()
   */
  async *stream(
    prompt: Prompt,
    options: Omit<GenerateOptions, 'onToken'> = {},
  ): AsyncGenerator<string, Completion, undefined> {
    checkGenerateOptions(options)
    return yield* this.#run(prompt, options, true)
  }

  /**
   * generate() for each prompt, `batchSize` of loadModel() at once; where an answer ends, the next prompt takes its place.
   *
   * @throws TunesmithError as generate(); of a prompt that is refused with its number
   */
  async generateAll(prompts: readonly Prompt[], options: Omit<GenerateOptions, 'onToken'> = {}): Promise<Completion[]> {
    checkGenerateOptions(options, 'all')
    const { signal } = options
    const release = this.#occupy(signal)
    try {
      const jobs: Job[] = []
      for (const [index, prompt] of prompts.entries())
        jobs.push(await this.#prepare(prompt, options, false).catch((error) => refusePrompt(index, error)))
      await growAll(this.#engine, jobs, this.batchSize, signal)
      const completions: Completion[] = []
      for (const [index, { ids, answer }] of jobs.entries()) {
        const { text } = await answer.end()
        completions.push(await this.#completion(prompts[index]!, ids.length, answer, text, options))
      }
      return completions
    } catch (error) {
      signal?.throwIfAborted()
      throw asTunesmithError(error)
    } finally {
      release()
    }
  }

  /** Frees the weights; generating ends. */
  close(): void {
    this.#engine.close()
  }

  async *#run(
    prompt: Prompt,
    options: GenerateOptions,
    pieces: boolean,
  ): AsyncGenerator<string, Completion, undefined> {
    const { signal } = options
    const release = this.#occupy(signal)
    try {
      const { ids, answer } = await this.#prepare(prompt, options, pieces)
      yield* grow(this.#engine, ids, answer, signal)
      const { text, rest } = await answer.end()
      if (pieces && rest !== '') yield rest
      return await this.#completion(prompt, ids.length, answer, text, options)
    } catch (error) {
      signal?.throwIfAborted()
      throw asTunesmithError(error)
    } finally {
      release()
    }
  }

  /** Takes the model for one piece of work, until the function that is returned is called. */
  #occupy(signal: AbortSignal | undefined): () => void {
    if (this.#busy)
      throw new TunesmithError('ERR_BUSY', 'this model is generating already; wait for it, or load another')
    signal?.throwIfAborted()
    this.#busy = true
    const cancel = () => this.#engine.cancel()
    signal?.addEventListener('abort', cancel, { once: true })
    return () => {
      signal?.removeEventListener('abort', cancel)
      this.#busy = false
    }
  }

  async #prepare(prompt: Prompt, options: GenerateOptions, pieces: boolean): Promise<Job> {
    const ids = await this.encode(prompt, options.tools)
    this.#checkRoom(ids)
    const answer = new Answer(ids, this.tokenizer, {
      ...options,
      maxNewTokens: options.maxNewTokens ?? 256,
      maxContext: this.maxContext,
      stopTokens: this.#stopTokens(prompt),
      stopStrings: [options.stop ?? []].flat(),
      pieces,
    })
    return { ids, answer }
  }

  async #completion(
    prompt: Prompt,
    promptTokens: number,
    { tokens, finishReason }: Answer,
    text: string,
    { tools, stop }: GenerateOptions,
  ): Promise<Completion> {
    const completion = { text, tokens: Int32Array.from(tokens), finishReason: finishReason!, promptTokens }
    if (typeof prompt === 'string') return completion
    const stopped = this.#stopTokens(prompt).has(tokens.at(-1)!)
    const spoken = await this.tokenizer.decode(stopped ? tokens.slice(0, -1) : tokens, { skipSpecial: false })
    const ends = [stop ?? []].flat().map((text) => spoken.indexOf(text))
    const said = spoken.slice(0, Math.min(spoken.length, ...ends.filter((end) => end >= 0)))
    return { ...completion, message: assistantTurn(text, said, this.#calls, prompt, tools) }
  }

  #checkRoom({ length }: Int32Array): void {
    if (length === 0) throw new TunesmithError('ERR_EMPTY_PROMPT', 'the prompt has no tokens')
    if (length < this.maxContext) return
    throw new TunesmithError(
      'ERR_CONTEXT_FULL',
      `the prompt has ${length} tokens, and the context holds ${this.maxContext}. Shorten it` +
        (this.maxContext < this.#maxPositions ? `, or raise maxContext (up to ${this.#maxPositions})` : ''),
    )
  }

  #stopTokens(prompt: Prompt): ReadonlySet<number> {
    const chat = typeof prompt !== 'string'
    const stops = chat ? [...this.template.stopTokens, ...this.tokenizer.stops] : this.tokenizer.stops
    return new Set(stops.map(({ id }) => id))
  }
}

function refusePrompt(index: number, error: unknown): never {
  if (!(error instanceof TunesmithError)) throw error
  throw new TunesmithError(error.code, `prompts[${index}]: ${error.message}`, { cause: error })
}
