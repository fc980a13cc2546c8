/** Jinja's tests: what stands after `is`. */
import { OPERATORS } from './operators.ts'
import {
  contains,
  equal,
  isDict,
  isFloat,
  isInteger,
  isIterable,
  isNumeric,
  isSequence,
  numberOf,
  text,
  truthy,
  typeName,
  type Value,
} from './values.ts'

export type Test = (value: Value, args: Value[]) => boolean

export function findTest(name: string): Test | undefined {
  return Object.hasOwn(TESTS, name) ? TESTS[name] : undefined
}

function remainder(value: Value, divisor: Value): number {
  if (!isNumeric(value) || !isNumeric(divisor)) {
    throw new Error(`unsupported operand type(s) for %: '${typeName(value)}' and '${typeName(divisor)}'`)
  }
  return Math.abs(numberOf(value) % numberOf(divisor))
}

function same(a: Value, b: Value): boolean {
  return a === b || (isNumeric(a) && isNumeric(b) && typeName(a) === typeName(b) && equal(a, b))
}

function operator(name: string): Test {
  const apply = OPERATORS[name]!
  return (value, [other]) => truthy(apply(value, other))
}

const TESTS: Record<string, Test> = {
  defined: (value) => value !== undefined,
  undefined: (value) => value === undefined,
  none: (value) => value === null,
  string: (value) => typeof value === 'string',
  boolean: (value) => typeof value === 'boolean',
  true: (value) => value === true,
  false: (value) => value === false,
  number: isNumeric,
  integer: isInteger,
  float: isFloat,
  mapping: isDict,
  sequence: isSequence,
  iterable: isIterable,
  callable: (value) => typeof value === 'function' || value === undefined,
  odd: (value) => remainder(value, 2) === 1,
  even: (value) => remainder(value, 2) === 0,
  divisibleby: (value, [divisor]) => remainder(value, divisor) === 0,
  lower: (value) => /\p{Cased}/u.test(text(value)) && text(value) === text(value).toLowerCase(),
  upper: (value) => /\p{Cased}/u.test(text(value)) && text(value) === text(value).toUpperCase(),
  in: (value, [container]) => contains(container, value),
  sameas: (value, [other]) => same(value, other),
  eq: operator('=='),
  equalto: operator('=='),
  '==': operator('=='),
  ne: operator('!='),
  '!=': operator('!='),
  lt: operator('<'),
  lessthan: operator('<'),
  '<': operator('<'),
  le: operator('<='),
  '<=': operator('<='),
  gt: operator('>'),
  greaterthan: operator('>'),
  '>': operator('>'),
  ge: operator('>='),
  '>=': operator('>='),
}
