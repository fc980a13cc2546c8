/** What is told of a turn that inference would show another context than training. */
import type { Message } from '../data/conversation.ts'
import { RowProblem } from '../data/rows.ts'
import type { ChatTemplate } from './template.ts'

/**
 * @param messages up to and including the turn `index`
 * @param prompt the generation prompt's rendering of what comes before, with which `text`, that of `messages`, does not
 * begin; `at` is where they part
 */
export function promptMismatch(
  template: ChatTemplate,
  messages: readonly Message[],
  tools: readonly unknown[] | undefined,
  { prompt, text, at }: { prompt: string; text: string; at: number },
): RowProblem {
  const from = wordStart(prompt, Math.min(at, prompt.length - 40))
  const what =
    `the template's generation prompt ends in ${JSON.stringify(prompt.slice(from))}, but this turn is rendered as ` +
    `${JSON.stringify(text.slice(from, wordEnd(text, at + 30)))}: inference would never show it this context`
  const agreeing = agreeingVariable(template, messages, tools)
  const set = Object.keys(template.variables)
  const remedy = agreeing
    ? `With templateVariables { ${agreeing} } they agree`
    : set.length > 0
      ? `templateVariables sets ${set.join(', ')}: change that, the turn or the chatTemplate`
      : 'Change the turn or use a chatTemplate whose prompt agrees'
  return new RowProblem(`messages[${messages.length - 1}]`, `${what}. ${remedy}`)
}

/** Of the variables that the template reads, one with which turn and prompt agree, as it is written in options. */
function agreeingVariable(
  template: ChatTemplate,
  messages: readonly Message[],
  tools: readonly unknown[] | undefined,
): string | undefined {
  for (const name of template.readVariables) {
    for (const value of [true, false]) {
      const variables = { [name]: value }
      try {
        const prompt = template.render(messages.slice(0, -1), { tools, addGenerationPrompt: true, variables })
        if (template.render(messages, { tools, variables }).startsWith(prompt)) return `${name}: ${value}`
      } catch {
        // A value that the template refuses is no remedy.
      }
    }
  }
  return undefined
}

/** The start of the line or tag in which `at` lies. */
function wordStart(text: string, at: number): number {
  return Math.max(0, text.lastIndexOf('<', at), text.lastIndexOf('\n', at) + 1)
}

function wordEnd(text: string, at: number): number {
  const end = text.slice(at).search(/[\s>]/)
  return end < 0 ? text.length : Math.min(at + end + 1, at + 40)
}
