/** Whether a template writes what stands before an answer when it is asked for one. */
import type { Message } from '../data/conversation.ts'
import { TunesmithError } from '../errors.ts'
import type { ChatTemplate } from './template.ts'

const USER: Message = { role: 'user', content: 'Zwei' }
const REPLY = 'Vier'

/** @throws TunesmithError `ERR_TEMPLATE` where it does not */
export function checkGenerationPrompt(template: ChatTemplate): void {
  const missing = missingGenerationPrompt(template)
  if (missing === undefined) return
  throw new TunesmithError(
    'ERR_TEMPLATE',
    `the chat template has no generation prompt: it does not write ${JSON.stringify(missing)} before an answer when it is ` +
      'asked for one, so the model would have to. Add it to the template where add_generation_prompt is true, or use another chatTemplate',
  )
}

/**
 * What a model would have to write itself before its answer, because the template leaves it out of the prompt; undefined
 * where nothing is left out. Templates whose assistant turns have no beginning of their own (Mistral) leave nothing out.
 */
export function missingGenerationPrompt(template: ChatTemplate): string | undefined {
  try {
    const prompt = template.render([USER], { addGenerationPrompt: true })
    if (prompt !== template.render([USER])) return undefined
    const whole = template.render([USER, { role: 'assistant', content: REPLY }])
    if (!whole.startsWith(prompt)) return undefined
    const before = whole.slice(prompt.length, whole.indexOf(REPLY, prompt.length))
    return before.trim() === '' ? undefined : before
  } catch {
    // What does not render says so itself when it is used.
    return undefined
  }
}
