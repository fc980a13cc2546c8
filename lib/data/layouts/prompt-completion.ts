/**
 * `{"prompt", "completion", "tools"?, "weight"?}`, both as text or both as messages.
 *
 * Text: no chat template. The example is prompt + completion, tokenised once as a whole, with bos where the tokenizer adds
 * it and eos after the completion; the tokens that overlap the completion, and eos, carry loss.
 *
 * Messages: one conversation, of which only the completion's turns carry loss.
 */
import type { Conversation, Message, Row, Source } from '../conversation.ts'
import { checkText, type Json, kind, optionalWeight, RowProblem, requireText } from '../rows.ts'
import type { Layout } from './layout.ts'
import { readTools, requireAssistant, turns } from './message.ts'

export const promptCompletion: Layout = {
  name: 'prompt-completion',
  title: 'prompt/completion',
  key: 'completion',
  jsonKeys: ['tools', 'weight'],
  evidence(row) {
    if (!('prompt' in row && 'completion' in row)) return undefined
    return `"prompt" and "completion"${Array.isArray(row.completion) ? ' as messages' : ' as text'}`
  },
  convert(row, source): Row {
    const weight = optionalWeight(row.weight, 'weight')
    const rowWeight = weight === undefined ? {} : { weight }
    const { prompt, completion } = row
    if (Array.isArray(completion) || Array.isArray(prompt)) return conversation(row, rowWeight, source)
    if (typeof prompt !== 'string') {
      throw new RowProblem('prompt', `expected text or a list of messages, found ${kind(prompt)}`)
    }
    checkText(prompt, 'prompt')
    if (row.tools !== undefined && row.tools !== null) {
      throw new RowProblem('tools', 'need a chat template, so prompt and completion have to be messages, not text')
    }
    const text = prompt + requireText(completion, 'completion')
    return { text, promptLength: prompt.length, ...rowWeight, source }
  },
}

function conversation(row: Json, rowWeight: { weight?: number }, source: Source): Conversation {
  const { prompt, completion } = row
  for (const [field, value] of Object.entries({ prompt, completion })) {
    if (!Array.isArray(value)) {
      throw new RowProblem(field, `expected a list of messages as the other half of the row, found ${kind(value)}`)
    }
  }
  const context = turns(prompt, 'prompt').map((message): Message => {
    if (message.weight !== undefined && message.weight !== 0) {
      throw new RowProblem('prompt', 'has a turn with a weight, but a prompt carries no loss; use "messages" instead')
    }
    return message.role === 'assistant' ? { ...message, weight: 0 } : message
  })
  const answer = turns(completion, 'completion')
  requireAssistant(answer, 'completion')
  const tools = readTools(row.tools)
  return { messages: [...context, ...answer], ...(tools && { tools }), ...rowWeight, source }
}
