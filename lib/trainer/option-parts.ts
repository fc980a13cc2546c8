/**
 * The parts of which schemas of options are made. The message of each is the end of the sentence "must be ...":
 * option-errors.ts puts the path before it and what was found behind it.
 */
import { z } from 'zod'
import { tensorExpression } from './tensor-pattern.ts'

const patternExpectation = "a pattern over tensor names, such as 'layers.0', '*.mlp' or '/regular expression/'"

export const number = (error: string, accepts: (value: number) => boolean) =>
  z.number({ error }).refine(accepts, { error })

export const integer = (from: number) =>
  number(`an integer from ${from} up`, (value) => Number.isSafeInteger(value) && value >= from)

export const positive = number('a number above 0', (value) => value > 0)

export const notNegative = number('a number from 0 up', (value) => value >= 0)

export const below1 = number('a number from 0 to below 1', (value) => value >= 0 && value < 1)

export const upTo1 = number('a number from 0 to 1', (value) => value >= 0 && value <= 1)

export const boolean = z.boolean({ error: 'true or false' })

export const path = (what: string) => z.string({ error: what }).refine((text) => text.trim() !== '', { error: what })

export const pattern = z
  .string({ error: patternExpectation })
  .refine((text) => text.trim() !== '' && isPattern(text), { error: patternExpectation })

export const patterns = z.union([pattern, z.array(pattern).min(1, { error: 'a list of at least one pattern' })], {
  error: 'a pattern over tensor names or a list of them',
})

function isPattern(text: string): boolean {
  try {
    tensorExpression(text)
    return true
  } catch {
    return false
  }
}

export const oneOf = <const T extends readonly [string, ...string[]]>(...values: T) =>
  z.enum(values, { error: listed(values) })

/** 'a', 'b' or 'c' */
function listed(values: readonly string[]): string {
  const quoted = values.map((value) => `'${value}'`)
  if (quoted.length < 2) return quoted.join()
  return `${quoted.slice(0, -1).join(', ')} or ${quoted.at(-1)}`
}
