/** What generate() and its kin are told, and what they return. */
import { type CallFormat, parseCalls } from '../chat/call-format.ts'
import type { Message } from '../data/conversation.ts'
import type { SamplingOptions } from './sampling.ts'

export interface GenerateOptions extends SamplingOptions {
  /** Default 256. */
  maxNewTokens?: number | undefined
  /** Ends the completion before the first of these that comes. Default none. */
  stop?: string | readonly string[] | undefined
  /** Tools as the chat template shows them to the model; of messages only. Default none. */
  tools?: readonly unknown[] | undefined
  signal?: AbortSignal | undefined
  /** Called with each piece of text as it comes. */
  onToken?: ((piece: string) => void) | undefined
}

export interface Completion {
  /** Without stop token and stop string. */
  text: string
  /** Generated ids, the stop token (or those of the stop string) included. */
  tokens: Int32Array
  /** 'stop': a stop token or stop string came; 'length': maxNewTokens or the context was reached. */
  finishReason: 'stop' | 'length'
  promptTokens: number
  /**
   * The assistant's turn, ready to be appended to the messages: `text` as its content, or the `tool_calls` that the chat
   * template's format finds in it. Absent after a text.
   */
  message?: Message
}

/** @param said what was generated without its stop, control tokens included */
export function assistantTurn(
  text: string,
  said: string,
  format: CallFormat | undefined,
  prompt: readonly Message[],
  tools: readonly unknown[] | undefined,
): Message {
  const before = prompt.reduce((count, { tool_calls: calls }) => count + (calls?.length ?? 0), 0)
  const parsed = format && parseCalls(format, said, tools, before)
  if (!parsed) return { role: 'assistant', content: text }
  return { role: 'assistant', content: parsed.content, tool_calls: parsed.calls }
}
