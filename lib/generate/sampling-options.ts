/** How tokens are chosen, as generate() and the trainer's samples are told: the parts of their schemas. */
import { z } from 'zod'
import type { Problem } from '../trainer/option-errors.ts'
import { integer, notNegative, number, positive, upTo1 } from '../trainer/option-parts.ts'

const stops = 'a text of at least one character, or a list of such'
const stop = z.string({ error: stops }).min(1, { error: stops })

/** What narrows a draw; without a temperature nothing is drawn. */
const drawing = {
  topK: integer(0).optional(),
  topP: number('a number above 0, at most 1', (value) => value > 0 && value <= 1).optional(),
  minP: upTo1.optional(),
}

export const samplingParts = {
  maxNewTokens: integer(1).optional(),
  temperature: notNegative.optional(),
  ...drawing,
  repetitionPenalty: positive.optional(),
  seed: integer(0).optional(),
  stop: z.union([stop, z.array(stop)], { error: stops }).optional(),
}

/** Problems with options that have no effect: these are refused, not ignored. `at` precedes their names. */
export function withoutEffect(options: object, at = ''): Problem[] {
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
