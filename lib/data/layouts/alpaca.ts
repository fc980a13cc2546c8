/**
 * Alpaca: `{"instruction", "input"?, "output", "system"?, "history"?, "tools"?, "weight"?}`. The user's turn is the
 * instruction, and under it, after a line break, the input where it is not empty. `history` holds earlier exchanges as
 * pairs of texts, which carry loss as every assistant turn does.
 */
import type { Message } from '../conversation.ts'
import { kind, optionalText, optionalWeight, RowProblem, requireText } from '../rows.ts'
import type { Layout } from './layout.ts'
import { wrappedTools } from './message.ts'

export const alpaca: Layout = {
  name: 'alpaca',
  title: 'Alpaca',
  key: 'instruction',
  jsonKeys: ['history', 'tools', 'weight'],
  evidence(row) {
    if (!('instruction' in row && 'output' in row)) return undefined
    return 'input' in row ? '"instruction", "input" and "output"' : '"instruction" and "output"'
  },
  convert(row, source) {
    const instruction = requireText(row.instruction, 'instruction')
    const input = optionalText(row.input, 'input')
    const system = optionalText(row.system, 'system')
    const messages: Message[] = []
    if (system !== '') messages.push({ role: 'system', content: system })
    for (const [question, answer] of history(row.history)) {
      messages.push({ role: 'user', content: question }, { role: 'assistant', content: answer })
    }
    messages.push({ role: 'user', content: input === '' ? instruction : `${instruction}\n${input}` })
    messages.push({ role: 'assistant', content: requireText(row.output, 'output') })
    const tools = wrappedTools(row.tools)
    const weight = optionalWeight(row.weight, 'weight')
    return { messages, ...(tools && { tools }), ...(weight !== undefined && { weight }), source }
  },
}

function history(value: unknown): [string, string][] {
  if (value === undefined || value === null) return []
  if (!Array.isArray(value)) {
    throw new RowProblem('history', `expected a list of [question, answer], found ${kind(value)}`)
  }
  return value.map((pair: unknown, index) => {
    const field = `history[${index}]`
    if (!Array.isArray(pair) || pair.length !== 2) {
      const found = Array.isArray(pair) ? `a list of ${pair.length}` : kind(pair)
      throw new RowProblem(field, `expected [question, answer], found ${found}`)
    }
    return [requireText(pair[0], `${field}[0]`), requireText(pair[1], `${field}[1]`)]
  })
}
