/** The check of what logProbabilities() is given. */
import { z } from 'zod'
import { optionError, schemaProblems } from '../trainer/option-errors.ts'
import { boolean, integer, oneOf, path } from '../trainer/option-parts.ts'

const pairs = 'the path of a data file, or a list of paths or rows'

const schema = z.strictObject({
  model: path('the folder of a checkpoint'),
  pairs: z.union([path(pairs), z.array(z.union([path(pairs), z.record(z.string(), z.unknown())], { error: pairs }))], {
    error: pairs,
  }),
  output: path('the path of a .jsonl or .parquet file').optional(),
  overwrite: boolean.optional(),
  chatTemplate: path("'model', the name of a built-in template or the path of a Jinja file").optional(),
  maxLength: integer(2).optional(),
  device: oneOf('auto', 'cuda', 'cpu', 'reference').optional(),
  precision: oneOf('auto', 'float32', 'bfloat16').optional(),
  threads: integer(0).optional(),
  microBatchTokens: integer(1).optional(),
  signal: z.instanceof(AbortSignal, { error: 'an AbortSignal' }).optional(),
  onProgress: z.custom<unknown>((value) => typeof value === 'function', { error: 'a function' }).optional(),
})

/** @throws TunesmithError `ERR_UNKNOWN_OPTION`, `ERR_INVALID_OPTION` */
export function checkLogProbOptions(options: object): void {
  const parsed = schema.safeParse(options)
  if (!parsed.success) throw optionError(schemaProblems(parsed.error.issues, options, Object.keys(schema.shape)))
}
