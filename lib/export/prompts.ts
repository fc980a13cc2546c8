/** The prompts on which a merged model is compared with its adapter. */
import { readFile } from 'node:fs/promises'
import { TunesmithError } from '../errors.ts'

/** Of several kinds, so that more than one part of the model speaks. */
export const builtinPrompts: readonly string[] = [
  'What is the capital of France?',
  'Write a short poem about the sea in winter.',
  'A train leaves at 9:40 and arrives at 13:05. How long does the journey take?',
  'Explain to a child why the sky is blue.',
  'Translate into German: The weather is nice today, so we will go for a walk.',
  'List three things that one should not forget when packing for a journey.',
]

/**
 * The lines of a file that are not empty, each the user's turn of a conversation.
 *
 * @throws ERR_DATA_NOT_FOUND, ERR_EMPTY_DATASET
 */
export async function readPrompts(path: string): Promise<string[]> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (cause) {
    throw new TunesmithError('ERR_DATA_NOT_FOUND', `prompts ${path} cannot be read: ${(cause as Error).message}`, {
      cause,
    })
  }
  const lines = text.split(/\r?\n/).filter((line) => line.trim() !== '')
  if (lines.length === 0)
    throw new TunesmithError('ERR_EMPTY_DATASET', `${path} has no prompt: one per line is expected`)
  return lines
}
