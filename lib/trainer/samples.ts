/** Completions of fixed prompts while a run trains: what its model says, beside what its loss is. */
import type { ChatTemplate } from '../chat/template.ts'
import type { Tokenizer } from '../chat/tokenizer.ts'
import { TunesmithError } from '../errors.ts'
import { Answer } from '../generate/answer.ts'
import { encodePrompt, encodeText, type Prompt } from '../generate/prompt.ts'
import { grow } from '../generate/run.ts'
import type { NativeEngine } from '../native/addon.ts'
import type { SampleEvent } from './events.ts'
import type { ResolvedSamples } from './options.ts'

export interface Samples {
  options: ResolvedSamples
  /** Token ids of each prompt. */
  prompts: Int32Array[]
  /** Positions of the key/value cache: of the longest prompt and its completion, at most the model's context. */
  cacheTokens: number
  stopTokens: ReadonlySet<number>
  tokenizer: Tokenizer
}

/**
 * Encodes the prompts: messages through the run's chat template, a text as a user's turn of it, or as it is where the run
 * has none.
 *
 * @throws TunesmithError with the number of the prompt: `ERR_INVALID_PROMPT`, `ERR_EMPTY_PROMPT`, `ERR_TEMPLATE`,
 * `ERR_CONTEXT_FULL`
 */
export async function prepareSamples(
  options: ResolvedSamples,
  tokenizer: Tokenizer,
  template: ChatTemplate | undefined,
  maxPositions: number,
): Promise<Samples> {
  const prompts: Int32Array[] = []
  for (const [index, prompt] of options.prompts.entries()) {
    const refuse = (code: string, message: string, cause?: unknown): never => {
      throw new TunesmithError(code, `samples.prompts[${index}]: ${message}`, { cause })
    }
    const ids = await encode(prompt, tokenizer, template).catch((error: TunesmithError) =>
      refuse(error.code, error.message, error),
    )
    if (ids.length === 0) refuse('ERR_EMPTY_PROMPT', 'the prompt has no tokens')
    if (ids.length >= maxPositions)
      refuse('ERR_CONTEXT_FULL', `the prompt has ${ids.length} tokens, and the model's context holds ${maxPositions}`)
    prompts.push(ids)
  }
  const longest = Math.max(...prompts.map(({ length }) => length))
  const stops = [...(template?.stopTokens ?? []), ...tokenizer.stops]
  return {
    options,
    prompts,
    cacheTokens: Math.min(maxPositions, longest + options.maxNewTokens),
    stopTokens: new Set(stops.map(({ id }) => id)),
    tokenizer,
  }
}

async function encode(prompt: Prompt, tokenizer: Tokenizer, template: ChatTemplate | undefined): Promise<Int32Array> {
  if (!template) {
    if (typeof prompt === 'string') return encodeText(prompt, tokenizer)
    throw new TunesmithError('ERR_INVALID_PROMPT', 'messages need a chat template, and this run of plain text has none')
  }
  const messages = typeof prompt === 'string' ? [{ role: 'user' as const, content: prompt }] : prompt
  return encodePrompt(messages, { tokenizer, template })
}

/** One event per prompt, in their order. A function of the weights and the options alone. */
export async function* takeSamples(
  engine: Pick<NativeEngine, 'extend'>,
  { options, prompts, cacheTokens, stopTokens, tokenizer }: Samples,
  { step, epoch, signal }: { step: number; epoch: number; signal: AbortSignal | undefined },
): AsyncGenerator<SampleEvent> {
  const { prompts: given, every: _, stop, ...sampling } = options
  for (const [index, ids] of prompts.entries()) {
    const answer = new Answer(ids, tokenizer, {
      ...sampling,
      maxContext: cacheTokens,
      stopTokens,
      stopStrings: stop,
      pieces: false,
    })
    for await (const _ of grow(engine, ids, answer, signal));
    const { text } = await answer.end()
    const finishReason = answer.finishReason!
    yield { step, epoch, index, prompt: given[index]!, text, finishReason, tokens: answer.tokens.length }
  }
}
