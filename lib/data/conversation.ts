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

export interface Message {
  role: string
  content: string
  tool_calls?: ToolCall[]
  tool_call_id?: string
  name?: string
  /** Loss weight of this turn, ≥ 0; 1 when absent. */
  weight?: number
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
