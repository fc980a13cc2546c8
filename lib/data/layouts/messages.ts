/** `{"messages": [{"role", "content"}, ...], "tools"?, "weight"?}`: the chat format of OpenAI and Hugging Face. */
import { optionalWeight } from '../rows.ts'
import type { Layout } from './layout.ts'
import { conversationTurns, readTools } from './message.ts'

export const messages: Layout = {
  name: 'messages',
  title: 'messages',
  key: 'messages',
  jsonKeys: ['messages', 'tools', 'weight'],
  evidence: (row) => ('messages' in row ? '"messages"' : undefined),
  convert(row, source) {
    const turns = conversationTurns(row.messages, 'messages')
    const tools = readTools(row.tools)
    const weight = optionalWeight(row.weight, 'weight')
    return { messages: turns, ...(tools && { tools }), ...(weight !== undefined && { weight }), source }
  },
}
