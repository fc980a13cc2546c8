/** Checks of what loadModel() and generate() are given: unknown names and values out of range are errors, as in training. */
import { z } from 'zod'
import { optionError, type Problem, schemaProblems } from '../trainer/option-errors.ts'
import { integer, notNegative, number, oneOf, path, positive, upTo1 } from '../trainer/option-parts.ts'
import type { GenerateOptions } from './completion.ts'
import type { LoadModelOptions } from './load.ts'

const loading = z.strictObject({
  device: oneOf('auto', 'cuda', 'cpu', 'reference').optional(),
  precision: oneOf('auto', 'float32', 'bfloat16').optional(),
  threads: integer(0).optional(),
  maxContext: integer(1).optional(),
  chatTemplate: path("'model', the name of a built-in template or the path of a Jinja file").optional(),
})

const stops = 'a text of at least one character, or a list of such'
const stop = z.string({ error: stops }).min(1, { error: stops })

/** What draws, apart from the temperature without which nothing is drawn. */
const drawing = {
  topK: integer(0).optional(),
  topP: number('a number above 0, at most 1', (value) => value > 0 && value <= 1).optional(),
  minP: upTo1.optional(),
}

/** Options of the tokens that are chosen. */
export const sampling = {
  maxNewTokens: integer(1).optional(),
  temperature: notNegative.optional(),
  ...drawing,
  repetitionPenalty: positive.optional(),
  seed: integer(0).optional(),
  stop: z.union([stop, z.array(stop)], { error: stops }).optional(),
}

const generating = z.strictObject({
  ...sampling,
  tools: z.array(z.unknown(), { error: 'a list of tools' }).optional(),
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
  const problems = withoutEffect(options)
  if (problems.length > 0) throw optionError(problems)
}

/** An option without an effect is refused, not ignored. */
export function withoutEffect(options: Record<string, unknown> | GenerateOptions, at = ''): Problem[] {
  const { temperature = 0, ...given } = options as Record<string, unknown>
  if (temperature !== 0) return []
  const neutral: Record<string, number> = { topK: 0, topP: 1, minP: 0 }
  return Object.keys(drawing)
    .filter((name) => given[name] !== undefined && given[name] !== neutral[name])
    .map((name) => ({
      kind: 'invalid',
      path: `${at}${name}`,
      message: 'has no effect with temperature 0, which takes the most likely token: give a temperature, such as 1',
    }))
}

function check(schema: z.ZodObject, options: unknown): void {
  const parsed = schema.safeParse(options)
  if (!parsed.success) throw optionError(schemaProblems(parsed.error.issues, options, Object.keys(schema.shape)))
}
