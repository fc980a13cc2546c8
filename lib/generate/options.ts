/** Checks of what loadModel() and generate() are given: unknown names and values out of range are errors, as in training. */
import { z } from 'zod'
import { optionError, schemaProblems } from '../trainer/option-errors.ts'
import { integer, oneOf, path } from '../trainer/option-parts.ts'
import type { GenerateOptions } from './completion.ts'
import type { LoadModelOptions } from './load.ts'
import { samplingParts, withoutEffect } from './sampling-options.ts'

const loading = z.strictObject({
  device: oneOf('auto', 'cuda', 'cpu', 'reference').optional(),
  precision: oneOf('auto', 'float32', 'bfloat16').optional(),
  threads: integer(0).optional(),
  maxContext: integer(1).optional(),
  batchSize: integer(1).optional(),
  chatTemplate: path("'model', the name of a built-in template or the path of a Jinja file").optional(),
})

const generating = z.strictObject({
  ...samplingParts,
  tools: z.array(z.unknown(), { error: 'a list of tools' }).optional(),
  signal: z.instanceof(AbortSignal, { error: 'an AbortSignal' }).optional(),
  onToken: z.custom<unknown>((value) => typeof value === 'function', { error: 'a function' }).optional(),
})

/** @throws TunesmithError `ERR_UNKNOWN_OPTION`, `ERR_INVALID_OPTION` */
export function checkLoadOptions(options: LoadModelOptions): void {
  check(loading, options)
}

/** @throws TunesmithError `ERR_UNKNOWN_OPTION`, `ERR_INVALID_OPTION` */
export function checkGenerateOptions(options: GenerateOptions, prompts: 'one' | 'all' = 'one'): void {
  check(prompts === 'one' ? generating : generating.omit({ onToken: true }), options)
  const problems = withoutEffect(options)
  if (problems.length > 0) throw optionError(problems)
}

function check(schema: z.ZodObject, options: unknown): void {
  const parsed = schema.safeParse(options)
  if (!parsed.success) throw optionError(schemaProblems(parsed.error.issues, options, Object.keys(schema.shape)))
}
