/**
 * From one parsed JSONL row to a Conversation or a TextRow. Everything that is not exactly right is refused with the
 * field and what to do: a row that is repaired in silence trains something its author never wrote.
 */
import type { Conversation, Message, Role, Source, TextRow, ToolCall } from './conversation.ts'
import type { RowFormat } from './paths.ts'

/** What is wrong with one row. Caught where rows are read; `onBadRow` decides what becomes of it. */
export class RowProblem extends Error {
  /** Path inside the row, e.g. `messages[2].content`; empty for the row as a whole. */
  readonly field: string

  constructor(field: string, message: string) {
    super(message)
    this.field = field
  }
}

/** A row layout that this version knows by name; those without a reader are refused by name instead of guessed at. */
export type DetectedFormat = 'messages' | 'text' | 'conversations' | 'alpaca' | 'prompt' | 'tokens'

type Json = Record<string, unknown>

const ROLES: readonly Role[] = ['system', 'user', 'assistant', 'tool', 'developer']
const FOREIGN_ROLES: Record<string, Role> = {
  human: 'user',
  gpt: 'assistant',
  bot: 'assistant',
  model: 'assistant',
  ai: 'assistant',
  function: 'tool',
  ipython: 'tool',
  observation: 'tool',
}
/** Keys of a message that may be null, as table formats pad them: null means absent. */
const OPTIONAL = ['tool_calls', 'tool_call_id', 'name', 'weight', 'reasoning_content', 'thinking']

/** Tells the layout from a row's keys. */
export function detectFormat(row: unknown): DetectedFormat | undefined {
  if (!isObject(row)) return undefined
  if ('messages' in row) return 'messages'
  if ('conversations' in row) return 'conversations'
  if ('instruction' in row) return 'alpaca'
  if ('prompt' in row) return 'prompt'
  if ('input_ids' in row) return 'tokens'
  return 'text' in row ? 'text' : undefined
}

/**
 * @throws RowProblem
 */
export function validateRow(row: unknown, format: Exclude<RowFormat, 'auto'>, source: Source): Conversation | TextRow {
  if (!isObject(row)) throw new RowProblem('', `expected an object, found ${kind(row)}`)
  return format === 'messages' ? conversation(row, source) : textRow(row, source)
}

function textRow(row: Json, source: Source): TextRow {
  if (typeof row.text !== 'string') throw new RowProblem('text', `expected text, found ${kind(row.text)}`)
  if (row.text.trim() === '') throw new RowProblem('text', 'is empty; remove the row')
  checkText(row.text, 'text')
  return { text: row.text, source }
}

function conversation(row: Json, source: Source): Conversation {
  const list = row.messages
  if (!Array.isArray(list)) {
    throw new RowProblem('messages', `expected a list of { role, content }, found ${kind(list)}`)
  }
  if (list.length === 0) throw new RowProblem('messages', 'is an empty list; remove the row')
  const messages = list.map((message, index) => validateMessage(message, `messages[${index}]`))
  if (!messages.some(({ role }) => role === 'assistant')) {
    throw new RowProblem('messages', 'has no assistant turn, so there is nothing to learn; add one or remove the row')
  }
  const tools = row.tools ?? undefined
  if (tools === undefined) return { messages, source }
  if (!Array.isArray(tools) || !tools.every(isObject)) {
    throw new RowProblem('tools', `expected a list of objects, found ${kind(tools)}`)
  }
  checkText(tools, 'tools')
  return { messages, tools, source }
}

function validateMessage(value: unknown, field: string): Message {
  if (!isObject(value)) throw new RowProblem(field, `expected { role, content }, found ${kind(value)}`)
  const role = validateRole(value, field)
  // fromEntries, not assignment: a key named __proto__ is data like any other.
  const message: Message = Object.assign(Object.fromEntries(Object.entries(value).filter(kept)), { role })
  if (message.tool_calls !== undefined) checkToolCalls(message.tool_calls, role, `${field}.tool_calls`)
  for (const key of ['name', 'tool_call_id', 'reasoning_content', 'thinking']) {
    const entry = message[key]
    if (entry !== undefined && typeof entry !== 'string') {
      throw new RowProblem(`${field}.${key}`, `expected text, found ${kind(entry)}`)
    }
  }
  const { weight } = message as { weight?: unknown }
  if (weight !== undefined && !(typeof weight === 'number' && Number.isFinite(weight) && weight >= 0)) {
    throw new RowProblem(`${field}.weight`, `expected a number from 0 up, found ${shown(weight)}`)
  }
  if ('content' in value) message.content = joinParts(value.content, `${field}.content`)
  checkContent(message, field)
  checkText(message, field)
  return message
}

function kept([key, entry]: [string, unknown]): boolean {
  return key !== 'content' && !(entry === null && OPTIONAL.includes(key))
}

function validateRole(message: Json, field: string): Role {
  const { role } = message
  if (role === undefined) {
    const hint = 'from' in message ? '; "from" and "value" are the ShareGPT layout' : ''
    throw new RowProblem(`${field}.role`, `is missing; expected one of ${ROLES.join(', ')}${hint}`)
  }
  if (ROLES.includes(role as Role)) return role as Role
  const meant = typeof role === 'string' ? FOREIGN_ROLES[role.toLowerCase()] : undefined
  const lower = typeof role === 'string' ? ROLES.find((known) => known === role.trim().toLowerCase()) : undefined
  const hint = meant ?? lower
  const remedy = hint ? `; write "${hint}"` : `; expected one of ${ROLES.join(', ')}`
  throw new RowProblem(`${field}.role`, `unknown role ${shown(role)}${remedy}`)
}

/** Text as it is; typed text parts joined, as chat APIs do. */
function joinParts(content: unknown, field: string): string | null {
  if (content === null || typeof content === 'string') return content
  if (!Array.isArray(content)) {
    throw new RowProblem(field, `expected text or a list of { type: "text", text }, found ${kind(content)}`)
  }
  return content
    .map((part, index) => {
      const at = `${field}[${index}]`
      if (!isObject(part)) throw new RowProblem(at, `expected { type: "text", text }, found ${kind(part)}`)
      if (part.type !== 'text') throw new RowProblem(`${at}.type`, `expected "text", found ${shown(part.type)}`)
      if (typeof part.text !== 'string') throw new RowProblem(`${at}.text`, `expected text, found ${kind(part.text)}`)
      return part.text
    })
    .join('')
}

function checkContent(message: Message, field: string): void {
  const { role, content } = message
  const calls = role === 'assistant' && (message.tool_calls?.length ?? 0) > 0
  if (calls) return
  if (content === undefined || content === null) {
    const unless = role === 'assistant' ? '; only a turn with tool_calls may leave it out' : ''
    throw new RowProblem(`${field}.content`, `${content === null ? 'is null' : 'is missing'}, expected text${unless}`)
  }
  if (role === 'assistant' && content.trim() === '') {
    throw new RowProblem(
      `${field}.content`,
      'is empty: an assistant turn must say something. Write the answer or remove the row',
    )
  }
}

function checkToolCalls(calls: unknown, role: Role, field: string): asserts calls is ToolCall[] {
  if (!Array.isArray(calls)) throw new RowProblem(field, `expected a list, found ${kind(calls)}`)
  if (role !== 'assistant' && calls.length > 0)
    throw new RowProblem(field, `belongs to assistant turns, not to ${role}`)
  for (const [index, call] of calls.entries()) {
    const at = `${field}[${index}]`
    const target = isObject(call) ? call.function : undefined
    if (!isObject(call) || !isObject(target)) {
      throw new RowProblem(at, `expected { type: "function", function: { name, arguments } }, found ${kind(call)}`)
    }
    if (typeof target.name !== 'string') {
      throw new RowProblem(`${at}.function.name`, `expected text, found ${kind(target.name)}`)
    }
  }
}

/** Calls `visit` for every string in a JSON value, with its path. Iterative: nesting cannot overflow the stack. */
export function visitStrings(value: unknown, field: string, visit: (text: string, field: string) => void): void {
  const stack: [unknown, string][] = [[value, field]]
  for (let entry = stack.pop(); entry !== undefined; entry = stack.pop()) {
    const [current, path] = entry
    if (typeof current === 'string') {
      visit(current, path)
    } else if (Array.isArray(current)) {
      for (let i = current.length - 1; i >= 0; i--) stack.push([current[i], `${path}[${i}]`])
    } else if (isObject(current)) {
      const entries = Object.entries(current)
      for (const [key, child] of entries.reverse()) {
        stack.push([child, `${path}.${key}`])
        visit(key, path)
      }
    }
  }
}

/** Half of a surrogate pair cannot be written as UTF-8, so the tokenizer would see something else. */
function checkText(value: unknown, field: string): void {
  visitStrings(value, field, (text, at) => {
    const index = text.search(/\p{Surrogate}/u)
    if (index >= 0) {
      const half = `\\u${text.charCodeAt(index).toString(16)}`
      throw new RowProblem(at, `contains ${half} alone, half of a surrogate pair; remove it or complete the pair`)
    }
  })
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function kind(value: unknown): string {
  if (value === undefined) return 'nothing'
  if (value === null) return 'null'
  if (Array.isArray(value)) return 'a list'
  if (typeof value === 'string') return 'text'
  return typeof value === 'object' ? 'an object' : `a ${typeof value}`
}

function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? 'nothing'
  return text.length > 40 ? `${text.slice(0, 40)}...` : text
}
