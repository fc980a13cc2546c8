/** From what a user gives to the token ids of a prompt. */
import { checkGenerationPrompt } from '../chat/generation-prompt.ts'
import type { ChatTemplate } from '../chat/template.ts'
import type { Tokenizer } from '../chat/tokenizer.ts'
import type { Message } from '../data/conversation.ts'
import { readTools, turns } from '../data/layouts/message.ts'
import { RowProblem } from '../data/rows.ts'
import { TunesmithError } from '../errors.ts'

/** A text, which is continued as it is, or messages, which are answered. */
export type Prompt = string | readonly Message[]

/**
 * Token ids of a prompt: a text as it is (with bos where the tokenizer adds it), messages through the chat template.
 *
 * @throws TunesmithError `ERR_INVALID_PROMPT` with the field, `ERR_TEMPLATE` where the template has no generation prompt
 */
export async function encodePrompt(
  prompt: Prompt,
  { tokenizer, template }: { tokenizer: Tokenizer; template: ChatTemplate },
  tools?: readonly unknown[],
): Promise<Int32Array> {
  if (typeof prompt !== 'string') {
    const text = renderPrompt(prompt, template, tools)
    return (await tokenizer.encode(text)).ids
  }
  if (tools) throw invalid('tools reach a model through its chat template: give messages, not a text')
  return encodeText(prompt, tokenizer)
}

/** Ids of a text, after bos where the tokenizer's authors meant one to stand there. */
export async function encodeText(text: string, tokenizer: Tokenizer): Promise<Int32Array> {
  const { ids } = await tokenizer.encode(text)
  const { bos, addsBos } = tokenizer
  return addsBos && bos ? Int32Array.from([bos.id, ...ids]) : ids
}

function renderPrompt(prompt: readonly Message[], template: ChatTemplate, tools?: readonly unknown[]): string {
  const messages = checkMessages(prompt)
  const known = checked(() => readTools(tools))
  checkGenerationPrompt(template)
  let text: string
  try {
    text = template.render(messages, { tools: known, addGenerationPrompt: true })
  } catch (cause) {
    throw new TunesmithError(
      'ERR_INVALID_PROMPT',
      `the chat template does not render this prompt: ${(cause as Error).message}`,
      { cause },
    )
  }
  if (known && known.length > 0 && text === template.render(messages, { addGenerationPrompt: true }))
    throw invalid(
      'the chat template leaves tools out: it was not made for them. Remove them, or use another chatTemplate',
    )
  return text
}

/**
 * The messages of a prompt, checked as those of training data are.
 *
 * @throws TunesmithError `ERR_INVALID_PROMPT` with the field
 */
function checkMessages(prompt: readonly Message[]): Message[] {
  if (!Array.isArray(prompt) || prompt.length === 0) {
    throw invalid('the prompt must be a text, or a list of at least one message')
  }
  return checked(() => turns(prompt, 'messages'))
}

function checked<T>(read: () => T): T {
  try {
    return read()
  } catch (error) {
    if (!(error instanceof RowProblem)) throw error
    throw new TunesmithError('ERR_INVALID_PROMPT', `the prompt's ${error.field}: ${error.message}`, { cause: error })
  }
}

function invalid(message: string): TunesmithError {
  return new TunesmithError('ERR_INVALID_PROMPT', message)
}
