/** Checks of what loadModel() and generate() are given: unknown names and values out of range are errors, as in training. */
import { z } from 'zod'
import type { Message } from '../data/conversation.ts'
import { turns } from '../data/layouts/message.ts'
import { RowProblem } from '../data/rows.ts'
import { TunesmithError } from '../errors.ts'
import { optionError, schemaProblems } from '../trainer/option-errors.ts'
import { integer, notNegative, number, oneOf, path } from '../trainer/option-parts.ts'
import type { GenerateOptions, LoadModelOptions } from './model.ts'

const loading = z.strictObject({
  device: oneOf('auto', 'cuda', 'cpu', 'reference').optional(),
  precision: oneOf('auto', 'float32', 'bfloat16').optional(),
  threads: integer(0).optional(),
  maxContext: integer(1).optional(),
  chatTemplate: path("'model', the name of a built-in template or the path of a Jinja file").optional(),
})

const generating = z.strictObject({
  maxNewTokens: integer(1).optional(),
  temperature: notNegative.optional(),
  topP: number('a number above 0, at most 1', (value) => value > 0 && value <= 1).optional(),
  seed: integer(0).optional(),
  signal: z.instanceof(AbortSignal, { error: 'an AbortSignal' }).optional(),
  onToken: z.custom<unknown>((value) => typeof value === 'function', { error: 'a function' }).optional(),
})

/** @throws TunesmithError `ERR_UNKNOWN_OPTION`, `ERR_INVALID_OPTION` */
export function checkLoadOptions(options: LoadModelOptions): void {
  check(loading, options)
}

/** @throws TunesmithError `ERR_UNKNOWN_OPTION`, `ERR_INVALID_OPTION` */
export function checkGenerateOptions(options: GenerateOptions): void {
  check(generating, options)
}

function check(schema: z.ZodObject, options: unknown): void {
  const parsed = schema.safeParse(options)
  if (!parsed.success) throw optionError(schemaProblems(parsed.error.issues, options, Object.keys(schema.shape)))
}

/**
 * The messages of a prompt, checked as those of training data are.
 *
 * @throws TunesmithError `ERR_INVALID_PROMPT` with the field
 */
export function checkMessages(prompt: readonly Message[]): Message[] {
  if (!Array.isArray(prompt) || prompt.length === 0) {
    throw new TunesmithError('ERR_INVALID_PROMPT', 'the prompt must be a text, or a list of at least one message')
  }
  try {
    return turns(prompt, 'messages')
  } catch (error) {
    if (!(error instanceof RowProblem)) throw error
    throw new TunesmithError('ERR_INVALID_PROMPT', `the prompt's ${error.field}: ${error.message}`, { cause: error })
  }
}
