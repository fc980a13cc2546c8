/**
 * One turn and a list of turns, as every layout of conversations ends up. Everything that is not exactly right is refused
 * with the field and what to do: a row that is repaired in silence trains something its author never wrote.
 */
import type { Message, Role, ToolCall } from '../conversation.ts'
import { copyNotes } from '../exact-json.ts'
import { checkText, isObject, type Json, kind, optionalWeight, parseJson, RowProblem, shown } from '../rows.ts'

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

/** @throws RowProblem where `list` is not a list of turns with at least one of the assistant. */
export function conversationTurns(list: unknown, field: string): Message[] {
  const messages = turns(list, field)
  requireAssistant(messages, field)
  return messages
}

/** @throws RowProblem where `list` is not a list of at least one turn. */
export function turns(list: unknown, field: string): Message[] {
  if (!Array.isArray(list)) throw new RowProblem(field, `expected a list of { role, content }, found ${kind(list)}`)
  if (list.length === 0) throw new RowProblem(field, 'is an empty list; remove the row')
  return list.map((message, index) => validateMessage(message, `${field}[${index}]`))
}

export function requireAssistant(messages: readonly Message[], field: string): void {
  if (messages.some(({ role }) => role === 'assistant')) return
  throw new RowProblem(field, 'has no assistant turn, so there is nothing to learn; add one or remove the row')
}

/**
 * The `tools` of a row: a list of objects, or JSON text of one, as table formats keep it. Undefined where absent.
 *
 * @throws RowProblem
 */
export function readTools(value: unknown): Json[] | undefined {
  if (value === undefined || value === null) return undefined
  const tools = typeof value === 'string' ? parseJson(value, 'tools') : value
  if (!Array.isArray(tools) || !tools.every(isObject)) {
    throw new RowProblem('tools', `expected a list of objects, found ${kind(tools)}`)
  }
  checkText(tools, 'tools')
  return tools
}

/** Tools of layouts that write them without their OpenAI wrapping; none where the list or its text is empty. */
export function wrappedTools(value: unknown): Json[] | undefined {
  if (typeof value === 'string' && value.trim() === '') return undefined
  const tools = readTools(value)
  if (tools === undefined || tools.length === 0) return undefined
  return tools.map((tool) => ('function' in tool ? tool : { type: 'function', function: tool }))
}

function validateMessage(value: unknown, field: string): Message {
  if (!isObject(value)) throw new RowProblem(field, `expected { role, content }, found ${kind(value)}`)
  const role = validateRole(value, field)
  // fromEntries, not assignment: a key named __proto__ is data like any other.
  const message: Message = Object.assign(Object.fromEntries(Object.entries(value).filter(kept)), { role })
  copyNotes(value, message)
  if (message.tool_calls !== undefined) checkToolCalls(message.tool_calls, role, `${field}.tool_calls`)
  for (const key of ['name', 'tool_call_id', 'reasoning_content', 'thinking']) {
    const entry = message[key]
    if (entry !== undefined && typeof entry !== 'string') {
      throw new RowProblem(`${field}.${key}`, `expected text, found ${kind(entry)}`)
    }
  }
  optionalWeight(message.weight, `${field}.weight`)
  if ('content' in value) message.content = joinParts(value.content, `${field}.content`)
  checkContent(message, field)
  checkText(message, field)
  return message
}

function kept([key, entry]: [string, unknown]): boolean {
  return !(entry === null && OPTIONAL.includes(key))
}

function validateRole(message: Json, field: string): Role {
  const { role } = message
  if (role === undefined) {
    const hint = 'from' in message ? '; "from" and "value" are the ShareGPT layout, whose key is "conversations"' : ''
    throw new RowProblem(`${field}.role`, `is missing; expected one of ${ROLES.join(', ')}${hint}`)
  }
  if (ROLES.includes(role as Role)) return role as Role
  const name = typeof role === 'string' ? role.trim().toLowerCase() : ''
  const hint = Object.hasOwn(FOREIGN_ROLES, name) ? FOREIGN_ROLES[name] : ROLES.find((known) => known === name)
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
    checkArguments(target.arguments, `${at}.function.arguments`)
  }
}

/** An object, or JSON text of one as chat APIs return it. What is no JSON would be trained as it is. */
function checkArguments(given: unknown, field: string): void {
  if (given === undefined || given === null || isObject(given)) return
  const parsed = typeof given === 'string' ? parseJson(given, field) : given
  if (!isObject(parsed)) throw new RowProblem(field, `expected an object or JSON text of one, found ${kind(parsed)}`)
}
