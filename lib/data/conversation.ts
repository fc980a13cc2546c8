/** The structures that travel from file to micro-batch. Each is made in one place and never changed after. */

/** Where a row came from; kept to the end so that every message about it can name the place. */
export interface Source {
  file: string
  /** 1-based: the line where the row starts in JSONL and CSV files, the number of the row in JSON and Parquet files. */
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
  /** Multiplies every loss weight of this row, ≥ 0; 1 when absent. */
  weight?: number
  source: Source
}

/** Text that no chat template touches. */
export interface TextRow {
  text: string
  /**
   * UTF-16 length of the prompt that `text` starts with: context, while what follows carries loss. Absent in a row of
   * plain text, where every token carries loss and `trainOn` has to be 'all'.
   */
  promptLength?: number
  /** As of a Conversation. */
  weight?: number
  source: Source
}

/** A row that comes tokenised. */
export interface TokenRow {
  ids: Int32Array
  /** [ids.length] loss weight of each token; absent where every token carries loss and `trainOn` has to be 'all'. */
  weights?: Float32Array
  /** As of a Conversation. */
  weight?: number
  source: Source
}

/** What reading a file yields. */
export type Row = Conversation | TextRow | TokenRow

export function isConversation(row: Row): row is Conversation {
  return 'messages' in row
}

export function isTokenRow(row: Row): row is TokenRow {
  return 'ids' in row
}

/** Token ids with the loss weight of each token (0 = context only). */
export interface Example {
  ids: Int32Array
  weights: Float32Array
  source: Source
}
