/**
 * ShareGPT: `{"conversations": [{"from", "value"}, ...], "system"?, "tools"?, "weight"?}`. A `function_call` is a turn of
 * the assistant with tool calls, an `observation` a result of one. Turns may also have "role" and "content", as in
 * messages.
 */
import type { Message, Role, ToolCall } from '../conversation.ts'
import { isObject, type Json, kind, optionalText, optionalWeight, parseJson, RowProblem, shown } from '../rows.ts'
import type { Layout } from './layout.ts'
import { requireAssistant, turns, wrappedTools } from './message.ts'

const ROLES: Readonly<Record<string, Role | 'function_call'>> = {
  system: 'system',
  human: 'user',
  user: 'user',
  gpt: 'assistant',
  assistant: 'assistant',
  chatgpt: 'assistant',
  bot: 'assistant',
  model: 'assistant',
  function_call: 'function_call',
  observation: 'tool',
  tool: 'tool',
  function_response: 'tool',
}

export const sharegpt: Layout = {
  name: 'sharegpt',
  title: 'ShareGPT',
  key: 'conversations',
  jsonKeys: ['conversations', 'tools', 'weight'],
  evidence(row) {
    if (!('conversations' in row)) return undefined
    const first = Array.isArray(row.conversations) ? row.conversations[0] : undefined
    if (!isObject(first)) return '"conversations"'
    return `"conversations" with ${'from' in first ? '"from" and "value"' : '"role" and "content"'}`
  },
  convert(row, source) {
    const list = row.conversations
    if (!Array.isArray(list)) {
      throw new RowProblem('conversations', `expected a list of { from, value }, found ${kind(list)}`)
    }
    const written = list.map((turn, index) => fromTurn(turn, `conversations[${index}]`))
    // Once translated, turns are checked as every message is; positions and the field's name stay those of the row.
    const messages = turns(written, 'conversations')
    requireAssistant(messages, 'conversations')
    const system = optionalText(row.system, 'system')
    if (system !== '') {
      if (messages[0]!.role === 'system')
        throw new RowProblem('system', 'is given here and as the first turn; keep one')
      messages.unshift({ role: 'system', content: system })
    }
    const tools = wrappedTools(row.tools)
    const weight = optionalWeight(row.weight, 'weight')
    return { messages, ...(tools && { tools }), ...(weight !== undefined && { weight }), source }
  },
}

/** A turn with the keys of a message; what is no object is left for the checks of messages. */
function fromTurn(turn: unknown, field: string): unknown {
  if (!isObject(turn) || ('role' in turn && !('from' in turn))) return turn
  const { from, value, ...rest } = turn
  if ('role' in rest || 'content' in rest) {
    throw new RowProblem(field, 'has "from" and "role", or "value" and "content"; keep one pair')
  }
  const name = typeof from === 'string' ? from : ''
  if (!Object.hasOwn(ROLES, name)) {
    const found = from === undefined ? 'is missing' : `unknown speaker ${shown(from)}`
    throw new RowProblem(`${field}.from`, `${found}; expected one of ${Object.keys(ROLES).join(', ')}`)
  }
  const role = ROLES[name]!
  if (typeof value !== 'string') throw new RowProblem(`${field}.value`, `expected text, found ${kind(value)}`)
  if (role !== 'function_call') {
    if (role === 'assistant' && value.trim() === '') {
      throw new RowProblem(
        `${field}.value`,
        'is empty: an assistant turn must say something. Write it or remove the row',
      )
    }
    return { ...defined(rest), role, content: value }
  }
  return { ...defined(rest), role: 'assistant', content: null, tool_calls: toolCalls(value, `${field}.value`) }
}

/** Old exports pad turns with nulls. */
function defined(rest: Json): Partial<Message> {
  return Object.fromEntries(Object.entries(rest).filter(([, entry]) => entry !== null))
}

/** One call or a list of them, each `{ name, arguments }`. */
function toolCalls(value: string, field: string): ToolCall[] {
  const parsed = parseJson(value, field)
  const calls = Array.isArray(parsed) ? parsed : [parsed]
  if (calls.length === 0) throw new RowProblem(field, 'is an empty list of calls; remove the turn')
  return calls.map((call: unknown) => {
    if (!isObject(call) || typeof call.name !== 'string' || !('arguments' in call)) {
      throw new RowProblem(field, `expected JSON of { name, arguments } or a list of them, found ${shown(call)}`)
    }
    return { type: 'function', function: { name: call.name, arguments: call.arguments } }
  })
}
