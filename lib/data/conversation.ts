/** The structures that travel from file to micro-batch. Each is made in one place and never changed after. */

/** Where a row came from; kept to the end so that every message about it can name the place. */
export interface Source {
  file: string
  /** 1-based. */
  line: number
}

export interface ToolCall {
  id?: string
  type?: string
  function: { name: string; arguments: unknown }
}

export type Role = 'system' | 'user' | 'assistant' | 'tool' | 'developer'

/**
 * One turn. Keys that are not named here (`reasoning_content`, `thinking`, ...) travel to the template as they are; a
 * template may tell an absent key from null, so both are kept.
 */
export interface Message {
  role: Role
  /** Text; typed parts are joined. Null or absent only in an assistant turn with `tool_calls`. */
  content?: string | null
  tool_calls?: ToolCall[]
  tool_call_id?: string
  name?: string
  /** Loss weight of this turn, ≥ 0; 1 when absent. Not shown to the template. */
  weight?: number
  [key: string]: unknown
}

export interface Conversation {
  messages: Message[]
  tools?: unknown[]
  source: Source
}

/** A plain `text` row: every token carries loss, only with `trainOn: 'all'`. */
export interface TextRow {
  text: string
  source: Source
}

/** Token ids with the loss weight of each token (0 = context only). */
export interface Example {
  ids: Int32Array
  weights: Float32Array
  source: Source
}
