/**
 * Tool calls and the templates that do not expect them.
 *
 * Chat APIs give a turn that only calls tools `content: null`, and the arguments of a call as JSON text. Many templates add
 * up text and cannot render that, nor can Transformers with them; some want the arguments as objects, others as text.
 * Written in the form that the template knows the same turn renders, and that is how such templates are used at inference.
 * Others leave calls out without a word, and the model would learn to say nothing, or "None", instead.
 */
import type { Conversation, Message, ToolCall } from '../data/conversation.ts'
import { parseExactJson } from '../data/exact-json.ts'
import { isObject, RowProblem } from '../data/rows.ts'
import { toJson } from './jinja/tojson.ts'
import type { Value } from './jinja/values.ts'
import type { ChatTemplate } from './template.ts'

/** Begins the message about a row that a template does not render. */
export const REFUSED = 'the chat template refuses them'

/** A noncharacter that no text has. */
const MARK = '\ufdd3'

/** The conversation with empty content in place of none; undefined where no turn lacks it. */
export function withEmptyContent(conversation: Conversation): Conversation | undefined {
  if (!conversation.messages.some(isSilent)) return undefined
  const messages = conversation.messages.map((message) => (isSilent(message) ? { ...message, content: '' } : message))
  return { ...conversation, messages }
}

/** The conversation that is rendered for `conversation`: itself, or the first substitute that the template does not refuse. */
export function asRendered(template: ChatTemplate, conversation: Conversation): Conversation {
  const forms = [conversation, ...substitutes(conversation).map((substitute) => substitute.conversation)]
  return forms.find((form) => renders(template, form)) ?? conversation
}

function renders(template: ChatTemplate, { messages, tools }: Conversation): boolean {
  try {
    template.render(messages, { tools })
    return true
  } catch {
    return false
  }
}

function isSilent({ role, content, tool_calls }: Message): boolean {
  return role === 'assistant' && (content === null || content === undefined) && tool_calls !== undefined
}

/** A conversation in another form that means the same. */
export interface Substitute {
  conversation: Conversation
  /** Turns without content have an empty one. */
  filled: boolean
  /** What the arguments of its tool calls have become. */
  arguments?: 'JSON text' | 'objects'
}

/** What may be rendered in place of a conversation that a template refuses, what changes least first. */
export function substitutes(conversation: Conversation): Substitute[] {
  const filled = withEmptyContent(conversation)
  const forms = [{ conversation, filled: false }, ...(filled ? [{ conversation: filled, filled: true }] : [])]
  const converted = forms.flatMap((form): Substitute[] => {
    const objects = withArguments(form.conversation, (given) => (typeof given === 'string' ? parsed(given) : given))
    const texts = withArguments(form.conversation, (given) =>
      isObject(given) ? toJson(given as Value, [], undefined) : given,
    )
    return [
      ...(objects ? [{ ...form, conversation: objects, arguments: 'objects' as const }] : []),
      ...(texts ? [{ ...form, conversation: texts, arguments: 'JSON text' as const }] : []),
    ]
  })
  return [...forms.slice(1), ...converted]
}

/** Undefined where `change` changes nothing. */
function withArguments(conversation: Conversation, change: (given: unknown) => unknown): Conversation | undefined {
  let changed = false
  const messages = conversation.messages.map((message) =>
    withCalls(message, (call) => {
      const own = change(call.function.arguments)
      changed ||= own !== call.function.arguments
      return { ...call, function: { ...call.function, arguments: own } }
    }),
  )
  return changed ? { ...conversation, messages } : undefined
}

function parsed(text: string): unknown {
  try {
    return parseExactJson(text)
  } catch {
    return text
  }
}

function withCalls(message: Message, change: (call: ToolCall) => ToolCall): Message {
  return message.tool_calls ? { ...message, tool_calls: message.tool_calls.map(change) } : message
}

/** @throws RowProblem where `template` renders the conversation, but not all of its tool calls. */
export function checkCallsRendered(template: ChatTemplate, { messages, tools }: Conversation): void {
  const calls = messages.flatMap(({ tool_calls }) => tool_calls ?? [])
  if (calls.length === 0) return
  const marked = messages.map((message) =>
    withCalls(message, (call) => ({ ...call, function: { ...call.function, name: `${call.function.name}${MARK}` } })),
  )
  const found = template.render(marked, { tools }).split(MARK).length - 1
  if (found >= calls.length) return
  const first = messages.findIndex(({ tool_calls }) => tool_calls !== undefined)
  throw new RowProblem(
    `messages[${first}].tool_calls`,
    `the chat template leaves out ${calls.length - found} of the ${calls.length} tool calls of this conversation, so the ` +
      'model would never learn them. Use a chatTemplate with tool calls, or remove the row',
  )
}
