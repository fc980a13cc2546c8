/**
 * Tool calls and the templates that do not expect them.
 *
 * Chat APIs give a turn that only calls tools `content: null`. Many templates add up text and cannot render that, nor can
 * Transformers with them; written with empty content the same turn renders, and that is how such templates are used at
 * inference. Others leave calls out without a word, and the model would learn to say nothing, or "None", instead.
 */
import type { Conversation, Message, ToolCall } from '../data/conversation.ts'
import { RowProblem } from '../data/rows.ts'
import type { ChatTemplate } from './template.ts'

/** A noncharacter that no text has. */
const MARK = '\ufdd3'

/** The conversation with empty content in place of none; undefined where no turn lacks it. */
export function withEmptyContent(conversation: Conversation): Conversation | undefined {
  if (!conversation.messages.some(isSilent)) return undefined
  const messages = conversation.messages.map((message) => (isSilent(message) ? { ...message, content: '' } : message))
  return { ...conversation, messages }
}

/** The conversation that is rendered for `conversation`: with empty content where the template refuses turns without. */
export function asRendered(template: ChatTemplate, conversation: Conversation): Conversation {
  try {
    template.render(conversation.messages, { tools: conversation.tools })
    return conversation
  } catch {
    return withEmptyContent(conversation) ?? conversation
  }
}

function isSilent({ role, content, tool_calls }: Message): boolean {
  return role === 'assistant' && (content === null || content === undefined) && tool_calls !== undefined
}

/** What would make `template` render a conversation that it refuses, in words; '' where nothing that is tried does. */
export function remedy(template: ChatTemplate, conversation: Conversation): string {
  const filled = withEmptyContent(conversation) ?? conversation
  const messages = filled.messages.map(withTextArguments)
  try {
    template.render(messages, { tools: conversation.tools })
    return '; this template wants the arguments of tool calls as JSON text, not as objects'
  } catch {
    return ''
  }
}

function withTextArguments(message: Message): Message {
  return withCalls(message, (call) => {
    const { arguments: given } = call.function
    return typeof given === 'string'
      ? call
      : { ...call, function: { ...call.function, arguments: JSON.stringify(given) } }
  })
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
