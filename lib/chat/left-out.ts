/**
 * Words that a template leaves out. Transformers renders such conversations without a word, and the model never learns
 * what was lost: reasoning under a template that knows none, or text before a tag that the template cuts at.
 */
import type { Message } from '../data/conversation.ts'
import type { WeightedText } from './weights.ts'

/** Where conversations keep what the assistant thinks. */
const REASONING = ['reasoning_content', 'reasoning', 'thinking'] as const

/**
 * The first field whose words are missing: of trained assistant turns in the text that they are trained in (earlier
 * turns may be rewritten), of other messages in the last rendering. What follows the last trained turn teaches nothing, and
 * a conversation that had to be split ends there. Undefined where nothing is missing.
 *
 * Whitespace is not looked at, and templates may put words in between.
 */
export function leftOut(messages: readonly Message[], texts: readonly WeightedText[]): string | undefined {
  const said = new Map<number, string>()
  for (const { text, spans } of texts) {
    for (const { start, end, turn } of spans)
      if (turn !== undefined) said.set(turn, (said.get(turn) ?? '') + text.slice(start, end))
  }
  const last = texts.at(-1)?.text
  const end = said.size > 0 ? Math.max(...said.keys()) : messages.length
  for (const [index, message] of messages.entries()) {
    const rendered = message.role === 'assistant' ? said.get(index) : last
    if (rendered === undefined || index > end) continue
    const fields = message.role === 'assistant' ? ['content', ...REASONING] : ['content']
    for (const field of fields) {
      const words = (message as unknown as Record<string, unknown>)[field]
      if (typeof words === 'string' && !keeps(rendered, words)) return `messages[${index}].${field}`
    }
  }
  return undefined
}

/** Whether all of `words` stand in `rendered`, in their order. */
function keeps(rendered: string, words: string): boolean {
  if (rendered.includes(words.trim())) return true
  let at = 0
  for (const character of words.replace(/\s+/g, '')) {
    at = rendered.indexOf(character, at) + 1
    if (at === 0) return false
  }
  return true
}
