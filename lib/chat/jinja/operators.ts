/** Python's operators on template values. Whatever grows is bounded (limits.ts). */
import { checkList, checkText } from './limits.ts'
import {
  type Callable,
  characters,
  compare,
  contains,
  type Dict,
  dictGet,
  dictHas,
  equal,
  Float,
  float,
  integer,
  isDict,
  isFloat,
  isInteger,
  isNumeric,
  Loop,
  listItem,
  listItems,
  Namespace,
  numberOf,
  SURROGATE,
  Tuple,
  text,
  tuple,
  typeName,
  type Value,
  View,
} from './values.ts'

export function concatenate(a: string, b: string): string {
  checkText(a.length + b.length)
  return a + b
}

export type Operator = (a: Value, b: Value) => Value

export const OPERATORS: Record<string, Operator> = {
  '+': add,
  '-': (a, b) => arithmetic('-', a, b),
  '*': multiply,
  '/': divide,
  '//': floorDivide,
  '%': modulo,
  '**': power,
  '~': (a, b) => concatenate(text(a), text(b)),
  '==': equal,
  '!=': (a, b) => !equal(a, b),
  '<': (a, b) => ordered('<', a, b) < 0,
  '<=': (a, b) => ordered('<=', a, b) <= 0,
  '>': (a, b) => ordered('>', a, b) > 0,
  '>=': (a, b) => ordered('>=', a, b) >= 0,
  in: (a, b) => contains(b, a),
  'not in': (a, b) => !contains(b, a),
}

function ordered(operator: string, a: Value, b: Value): number {
  return compare(defined(a), defined(b), operator)
}

function defined(value: Value): Value {
  if (value === undefined) throw new Error('a value is undefined')
  return value
}

function unsupported(operator: string, a: Value, b: Value): Error {
  if (a === undefined || b === undefined) return new Error(`a value of ${operator} is undefined`)
  if (operator === '+' && (typeof a === 'string' || typeof b === 'string')) {
    return new Error(`cannot add ${typeName(a)} and ${typeName(b)}`)
  }
  return new Error(`unsupported operand type(s) for ${operator}: '${typeName(a)}' and '${typeName(b)}'`)
}

function add(a: Value, b: Value): Value {
  if (typeof a === 'string' && typeof b === 'string') return concatenate(a, b)
  if (Array.isArray(a) && Array.isArray(b) && a.constructor === b.constructor && !(a instanceof View)) {
    checkList(a.length + b.length)
    const items = [...listItems(a), ...listItems(b)]
    return a instanceof Tuple ? tuple(...items) : items
  }
  return arithmetic('+', a, b)
}

function arithmetic(operator: '+' | '-' | '*', a: Value, b: Value): Value {
  if (!isNumeric(a) || !isNumeric(b)) throw unsupported(operator, a, b)
  const floating = isFloat(a) || isFloat(b)
  const [left, right] = [numberOf(a), numberOf(b)]
  const result = operator === '+' ? left + right : operator === '-' ? left - right : left * right
  if (floating) return float(result)
  if (Number.isSafeInteger(result)) return result
  const [x, y] = [BigInt(a as bigint), BigInt(b as bigint)]
  const exact = operator === '+' ? x + y : operator === '-' ? x - y : x * y
  if (exact.toString(16).length > 2000) throw new Error('a number of the chat template grows beyond bounds')
  return integer(exact)
}

function multiply(a: Value, b: Value): Value {
  const [sequence, count] = typeof a === 'string' || Array.isArray(a) ? [a, b] : [b, a]
  if (typeof sequence !== 'string' && !Array.isArray(sequence)) return arithmetic('*', a, b)
  if (!isInteger(count) && typeof count !== 'boolean') throw unsupported('*', a, b)
  const times = Math.max(0, Number(count))
  if (typeof sequence === 'string') {
    checkText(sequence.length * times)
    return sequence.repeat(times)
  }
  checkList(sequence.length * times)
  const items = Array.from({ length: times }, () => listItems(sequence)).flat()
  return sequence instanceof Tuple ? tuple(...items) : items
}

function divide(a: Value, b: Value): Value {
  if (!isNumeric(a) || !isNumeric(b)) throw unsupported('/', a, b)
  return float(numberOf(a) / nonZero(numberOf(b)))
}

function floorDivide(a: Value, b: Value): Value {
  if (!isNumeric(a) || !isNumeric(b)) throw unsupported('//', a, b)
  const result = Math.floor(numberOf(a) / nonZero(numberOf(b)))
  return isFloat(a) || isFloat(b) ? float(result) : result
}

function modulo(a: Value, b: Value): Value {
  if (typeof a === 'string') return percentFormat(a, b)
  if (!isNumeric(a) || !isNumeric(b)) throw unsupported('%', a, b)
  const divisor = nonZero(numberOf(b))
  const remainder = numberOf(a) % divisor
  // Python's has the sign of the divisor.
  const result = remainder !== 0 && remainder < 0 !== divisor < 0 ? remainder + divisor : remainder
  return isFloat(a) || isFloat(b) ? float(result) : result
}

function power(a: Value, b: Value): Value {
  if (!isNumeric(a) || !isNumeric(b)) throw unsupported('**', a, b)
  const [base, exponent] = [numberOf(a), numberOf(b)]
  if (base === 0 && exponent < 0) throw new Error('0.0 cannot be raised to a negative power')
  const result = base ** exponent
  if (!Number.isFinite(result)) throw new Error('a power in the chat template is beyond bounds')
  if (isFloat(a) || isFloat(b) || exponent < 0) return float(result)
  return Number.isSafeInteger(result) ? result : integer(BigInt(base) ** BigInt(exponent))
}

function nonZero(value: number): number {
  if (value === 0) throw new Error('division by zero')
  return value
}

export function negate(value: Value): Value {
  if (!isNumeric(value)) throw new Error(`bad operand type for unary -: '${typeName(value)}'`)
  if (value instanceof Float) return new Float(-value.value)
  return typeof value === 'bigint' ? -value : typeof value === 'number' && value !== 0 ? -value : -numberOf(value) || 0
}

/** `'%s: %d' % values`, for the conversions without width. */
export function percentFormat(format: string, values: Value): string {
  const list = values instanceof Tuple ? [...values] : [values]
  let next = 0
  const take = (): Value => {
    if (next >= list.length) throw new Error('not enough arguments for format string')
    return list[next++]
  }
  const out = format.replace(/%(?:\((\w+)\))?(.?)/gs, (directive, key: string | undefined, kind: string) => {
    if (kind === '%') return '%'
    if (kind !== 's' && kind !== 'd') throw new Error(`the format ${directive} is not supported`)
    const value = key === undefined ? take() : dictGet(values as Dict, key)
    if (kind === 'd' && !isNumeric(value)) throw new Error(`%d format: a number is required, not ${typeName(value)}`)
    return kind === 'd' && isFloat(value) ? String(Math.trunc(numberOf(value))) : text(value)
  })
  if (next < list.length && !isDict(values)) throw new Error('not all arguments converted during string formatting')
  return out
}

/** `object[key]`. Undefined where there is nothing; `where` names the object in the message when it is undefined itself. */
export function item(object: Value, key: Value, where: () => string): Value {
  if (object === undefined) throw new Error(`${where()} is undefined`)
  if (object instanceof View) return undefined
  if (Array.isArray(object) || typeof object === 'string') {
    const index = typeof key === 'boolean' ? Number(key) : key
    if (!isInteger(index)) return undefined
    const items = typeof object === 'string' && SURROGATE.test(object) ? characters(object) : object
    const at = Number(index) < 0 ? items.length + Number(index) : Number(index)
    return Array.isArray(object) ? listItem(object, at) : items[at]
  }
  if (object instanceof Namespace) return undefined
  return isDict(object) ? dictGet(object, key) : undefined
}

/** `object.name`: what is no method of a dict is looked up in it. */
export function attribute(object: Value, name: string, where: () => string, methods: MethodsOf): Value {
  if (object === undefined) throw new Error(`${where()} is undefined`)
  if (object instanceof Namespace) return object.attributes.get(name)
  if (object instanceof Loop) return object.get(name)
  const method = methods(object, name)
  if (method) return method
  return isDict(object) && dictHas(object, name) ? dictGet(object, name) : undefined
}

export type MethodsOf = (object: Value, name: string) => Callable | undefined

/** `object[start:stop:step]`. */
export function slice(object: Value, start: Value, stop: Value, step: Value): Value {
  if ((typeof object !== 'string' && !Array.isArray(object)) || object instanceof View) {
    if (object === undefined) throw new Error('what is sliced is undefined')
    throw new Error(`'${typeName(object)}' object is not subscriptable`)
  }
  const by = bound(step) ?? 1
  if (by === 0) throw new Error('slice step cannot be zero')
  const astral = typeof object === 'string' && SURROGATE.test(object)
  const items: string | readonly Value[] = astral
    ? characters(object)
    : Array.isArray(object)
      ? listItems(object)
      : object
  const length = items.length
  const clamp = (value: number, low: number, high: number) =>
    Math.max(low, Math.min(high, value < 0 ? value + length : value))
  const [low, high] = by > 0 ? [0, length] : [-1, length - 1]
  const first = bound(start)
  const last = bound(stop)
  const from = first === undefined ? (by > 0 ? low : high) : clamp(first, low, high)
  const to = last === undefined ? (by > 0 ? high : low) : clamp(last, low, high)
  const picked =
    by === 1 && typeof items === 'string' ? items.slice(from, Math.max(from, to)) : pick(items, from, to, by)
  if (typeof picked === 'string') return picked
  if (typeof object === 'string') return picked.join('')
  return object instanceof Tuple ? tuple(...picked) : picked
}

function pick(items: string | readonly Value[], from: number, to: number, step: number): Value[] {
  const picked: Value[] = []
  for (let at = from; step > 0 ? at < to : at > to; at += step) picked.push(items[at])
  return picked
}

function bound(value: Value): number | undefined {
  if (value === undefined || value === null) return undefined
  if (isInteger(value) || typeof value === 'boolean') return Number(value)
  throw new Error('slice indices must be integers or None or have an __index__ method')
}
