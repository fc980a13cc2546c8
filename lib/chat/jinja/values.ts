/**
 * Python's values as a chat template sees them, in JavaScript: None is null, jinja2's Undefined is undefined, str is a
 * string, int a whole number (bigint beyond 2^53), float any other number or a Float, list an array, dict an object or,
 * made by a template, a Map. Rows are read where they are: nothing is converted before rendering.
 */
import { NUMBERS, orderedKeys } from '../../data/exact-json.ts'
import { checkList } from './limits.ts'

/** Anything of the above, a function, a Namespace or a Loop. */
export type Value = unknown
export type Dict = Map<Value, Value> | Record<string, Value>
export type Callable = (args: Value[], keywords: Keywords) => Value
/** Keyword arguments; undefined where there are none. */
export type Keywords = Map<string, Value> | undefined

/** A float without a fraction: Python writes 1.0 where JavaScript has 1. */
export class Float {
  readonly value: number

  constructor(value: number) {
    this.value = value
  }
}

export class Tuple extends Array<Value> {
  static override get [Symbol.species](): ArrayConstructor {
    return Array
  }
}

/** What range() makes. */
export class Range extends Array<Value> {
  static override get [Symbol.species](): ArrayConstructor {
    return Array
  }
}

/** What keys(), values() and items() of a dict make: listed like a list, but without places. */
export class View extends Array<Value> {
  static override get [Symbol.species](): ArrayConstructor {
    return Array
  }
}

export function view(items: readonly Value[]): View {
  const made = new View()
  for (const item of items) made.push(item)
  return made
}

/** What map, select and their like make: gone through once, always true, without a length. */
export class Generator {
  readonly #items: readonly Value[]
  #next = 0

  constructor(items: readonly Value[]) {
    this.#items = items
  }

  /** What has not been taken yet. */
  rest(): readonly Value[] {
    const rest = this.#items.slice(this.#next)
    this.#next = this.#items.length
    return rest
  }

  next(): Value {
    return this.#items[this.#next++]
  }

  /** Takes up to and with the first that is wanted; whether there was one. */
  takeUntil(wanted: (item: Value) => boolean): boolean {
    while (this.#next < this.#items.length) if (wanted(this.next())) return true
    return false
  }
}

export function tuple(...items: Value[]): Tuple {
  const made = new Tuple()
  for (const item of items) made.push(item)
  return made
}

/** What `namespace()` makes: the only thing whose attributes a template may set. */
export class Namespace {
  readonly attributes: Map<string, Value>

  constructor(attributes: Map<string, Value>) {
    this.attributes = attributes
  }
}

/** The `loop` of a for statement. */
export class Loop {
  readonly items: readonly Value[]
  index0 = 0
  #changed: Value[] | undefined

  constructor(items: readonly Value[]) {
    this.items = items
  }

  get(name: string): Value {
    const { items, index0 } = this
    switch (name) {
      case 'index':
        return index0 + 1
      case 'index0':
        return index0
      case 'first':
        return index0 === 0
      case 'last':
        return index0 === items.length - 1
      case 'length':
        return items.length
      case 'revindex':
        return items.length - index0
      case 'revindex0':
        return items.length - index0 - 1
      case 'previtem':
        return index0 > 0 ? items[index0 - 1] : undefined
      case 'nextitem':
        return items[index0 + 1]
      // Deeper only in recursive loops, which the parser does not know.
      case 'depth':
        return 1
      case 'depth0':
        return 0
      case 'cycle':
        return (args: Value[]) => args[this.index0 % args.length]
      case 'changed':
        return (args: Value[]) => {
          const changed = this.#changed === undefined || !equal(this.#changed, args)
          this.#changed = args
          return changed
        }
      default:
        return undefined
    }
  }
}

export function isDict(value: Value): value is Dict {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false
  return !(value instanceof Float || value instanceof Namespace || value instanceof Loop || value instanceof Generator)
}

/** Whether it is a number to Python; booleans are. */
export function isNumeric(value: Value): value is number | bigint | boolean | Float {
  return typeof value === 'number' || typeof value === 'boolean' || typeof value === 'bigint' || value instanceof Float
}

export function isInteger(value: Value): value is number | bigint {
  return typeof value === 'bigint' || (typeof value === 'number' && Number.isInteger(value))
}

export function isFloat(value: Value): value is number | Float {
  return value instanceof Float || (typeof value === 'number' && !Number.isInteger(value))
}

/** A number as JavaScript computes with it. */
export function numberOf(value: number | bigint | boolean | Float): number {
  return value instanceof Float ? value.value : Number(value)
}

/** A float as a value. */
export function float(value: number): number | Float {
  return Number.isInteger(value) ? new Float(value) : value
}

/** A whole number as a value. */
export function integer(value: bigint): number | bigint {
  return value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER ? Number(value) : value
}

/** Python's name of the type, for messages. */
export function typeName(value: Value): string {
  if (value === undefined) return 'Undefined'
  if (value === null) return 'None'
  if (typeof value === 'string') return 'str'
  if (typeof value === 'boolean') return 'bool'
  if (isInteger(value)) return 'int'
  if (isFloat(value)) return 'float'
  if (value instanceof Tuple) return 'tuple'
  if (Array.isArray(value)) return 'list'
  if (value instanceof Generator) return 'generator'
  if (value instanceof Namespace) return 'namespace'
  if (value instanceof Loop) return 'loop'
  return typeof value === 'function' ? 'function' : 'dict'
}

export function truthy(value: Value): boolean {
  if (typeof value !== 'object' || value === null) return Boolean(value)
  if (Array.isArray(value)) return value.length > 0
  if (value instanceof Float) return value.value !== 0
  if (value instanceof Map) return value.size > 0
  if (value instanceof Namespace || value instanceof Generator) return true
  if (value instanceof Loop) return true
  for (const key in value) if (Object.hasOwn(value, key)) return true
  return false
}

export function dictHas(dict: Dict, key: Value): boolean {
  return dict instanceof Map ? dict.has(key) : typeof key === 'string' && Object.hasOwn(dict, key)
}

export function dictGet(dict: Dict, key: Value): Value {
  if (dict instanceof Map) return dict.get(key)
  if (typeof key !== 'string' || !Object.hasOwn(dict, key)) return undefined
  return exact(dict, key, (dict as Record<string, Value>)[key])
}

export function dictKeys(dict: Dict): Value[] {
  return dict instanceof Map ? [...dict.keys()] : orderedKeys(dict)
}

export function dictItems(dict: Dict): Tuple[] {
  const keys = dictKeys(dict)
  checkList(keys.length)
  return keys.map((key) => tuple(key, dictGet(dict, key)))
}

/** A number as its row spells it, where JavaScript's own number says less. */
function exact(container: object, key: string | number, value: Value): Value {
  if (typeof value !== 'number') return value
  const source = (container as { [NUMBERS]?: Record<string, string> })[NUMBERS]?.[key]
  if (source === undefined) return value
  return /[.eE]/.test(source) ? float(Number(source)) : integer(BigInt(source))
}

export function listItem(list: readonly Value[], index: number): Value {
  return exact(list, index, list[index])
}

/** The elements of a list of a row. */
export function listItems(list: readonly Value[]): readonly Value[] {
  return NUMBERS in list ? list.map((item, index) => exact(list, index, item)) : list
}

export const SURROGATE = /[\ud800-\udbff]/

/** Characters as Python counts them. */
export function characters(text: string): string[] {
  return Array.from(text)
}

export function textLength(text: string): number {
  return SURROGATE.test(text) ? characters(text).length : text.length
}

/** @throws Error where it has no length */
export function lengthOf(value: Value): number {
  if (value === undefined) return 0
  if (typeof value === 'string') return textLength(value)
  if (Array.isArray(value)) return value.length
  if (isDict(value)) return dictKeys(value).length
  if (value instanceof Loop) return value.items.length
  throw new Error(`object of type '${typeName(value)}' has no len()`)
}

/** @throws Error where it cannot be iterated */
export function iterate(value: Value): readonly Value[] {
  if (value === undefined) return []
  if (Array.isArray(value)) {
    checkList(value.length)
    return listItems(value)
  }
  if (typeof value === 'string') {
    checkList(value.length)
    return characters(value)
  }
  if (value instanceof Generator) {
    const rest = value.rest()
    checkList(rest.length)
    return rest
  }
  if (isDict(value)) {
    const keys = dictKeys(value)
    checkList(keys.length)
    return keys
  }
  throw new Error(`'${typeName(value)}' object is not iterable`)
}

/** Whether it has a length and items, or is Undefined, which has both. */
export function isSequence(value: Value): boolean {
  if (value instanceof View) return false
  return value === undefined || typeof value === 'string' || Array.isArray(value) || isDict(value)
}

export function isIterable(value: Value): boolean {
  return isSequence(value) || value instanceof Generator || value instanceof View
}

export function equal(a: Value, b: Value): boolean {
  if (a === b) return true
  if (isNumeric(a) && isNumeric(b)) return compareNumbers(a, b) === 0
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false
  if (Array.isArray(a) || Array.isArray(b)) {
    if (!Array.isArray(a) || !Array.isArray(b) || a.constructor !== b.constructor) return false
    if (a.length !== b.length) return false
    checkList(a.length)
    return a.every((_, index) => equal(listItem(a, index), listItem(b, index)))
  }
  if (!isDict(a) || !isDict(b)) return false
  const keys = dictKeys(a)
  checkList(keys.length)
  return (
    keys.length === dictKeys(b).length &&
    keys.every((key) => dictHas(b, key) && equal(dictGet(a, key), dictGet(b, key)))
  )
}

type Numeric = number | bigint | boolean | Float

/** JavaScript compares numbers and bigints as Python does, with < and >. NaN is never equal to anything. */
function compareNumbers(a: Numeric, b: Numeric): number {
  const [left, right] = [typeof a === 'bigint' ? a : numberOf(a), typeof b === 'bigint' ? b : numberOf(b)]
  if (left < right) return -1
  return left > right ? 1 : left >= right ? 0 : Number.NaN
}

/** Less than 0 where a comes first. Text by code points, as in Python. @throws Error where Python cannot tell */
export function compare(a: Value, b: Value, operator = '<'): number {
  if (isNumeric(a) && isNumeric(b)) return compareNumbers(a, b)
  if (typeof a === 'string' && typeof b === 'string') return compareText(a, b)
  if (Array.isArray(a) && Array.isArray(b) && a instanceof Tuple === b instanceof Tuple) {
    for (let i = 0; i < Math.min(a.length, b.length); i++) {
      if (!equal(listItem(a, i), listItem(b, i))) return compare(listItem(a, i), listItem(b, i), operator)
    }
    return a.length - b.length
  }
  throw new Error(`'${operator}' not supported between instances of '${typeName(a)}' and '${typeName(b)}'`)
}

export function compareText(a: string, b: string): number {
  if (a === b) return 0
  if (!SURROGATE.test(a) && !SURROGATE.test(b)) return a < b ? -1 : 1
  const [left, right] = [characters(a), characters(b)]
  const length = Math.min(left.length, right.length)
  for (let i = 0; i < length; i++) {
    if (left[i] !== right[i]) return left[i]!.codePointAt(0)! - right[i]!.codePointAt(0)!
  }
  return left.length - right.length
}

/** Python's `item in container`. */
export function contains(container: Value, item: Value): boolean {
  if (typeof container === 'string') {
    if (typeof item === 'string') return container.includes(item)
    throw new Error(`'in <string>' requires string as left operand, not ${typeName(item)}`)
  }
  if (Array.isArray(container)) return container.some((_, index) => equal(listItem(container, index), item))
  if (container === undefined) return false
  if (container instanceof Generator) return container.takeUntil((other) => equal(other, item))
  if (isDict(container)) {
    if (typeof item === 'object' && item !== null) throw new Error(`unhashable type: '${typeName(item)}'`)
    return dictHas(container, item)
  }
  throw new Error(`argument of type '${typeName(container)}' is not iterable`)
}

/** Python's str(). */
export function text(value: Value): string {
  if (typeof value === 'string') return value
  return value === undefined ? '' : repr(value)
}

/** Python's repr(). */
export function repr(value: Value): string {
  if (value === null) return 'None'
  if (typeof value === 'string') return reprText(value)
  if (typeof value === 'boolean') return value ? 'True' : 'False'
  if (typeof value === 'bigint') return String(value)
  if (typeof value === 'number') return Number.isInteger(value) ? reprInteger(value) : reprFloat(value)
  if (value instanceof Float) return reprFloat(value.value)
  if (value instanceof Tuple) return `(${value.map(repr).join(', ')}${value.length === 1 ? ',' : ''})`
  if (value instanceof Range) return reprRange(value)
  if (value instanceof View) return reprView(value)
  if (Array.isArray(value)) {
    checkList(value.length)
    return `[${listItems(value).map(repr).join(', ')}]`
  }
  if (value === undefined) return 'Undefined'
  if (isDict(value))
    return `{${dictItems(value)
      .map(([key, item]) => `${repr(key)}: ${repr(item)}`)
      .join(', ')}}`
  // Python writes addresses here; no template means to.
  throw new Error(`a ${typeName(value)} cannot be written as text`)
}

function reprView(view: View): string {
  throw new Error(`a view of a dict with ${view.length} entries cannot be written as text; make a list of it`)
}

function reprRange(range: Range): string {
  const [from = 0, next = 1] = range as unknown as number[]
  const step = range.length > 1 ? next - from : 1
  return `range(${from}, ${from + range.length * step}${step === 1 ? '' : `, ${step}`})`
}

function reprInteger(value: number): string {
  return Object.is(value, -0) ? '0' : Number.isSafeInteger(value) ? String(value) : String(BigInt(value))
}

/** The shortest digits that read back, exponents outside 1e-4 to 1e16. */
export function reprFloat(value: number): string {
  if (Number.isNaN(value)) return 'nan'
  if (!Number.isFinite(value)) return value > 0 ? 'inf' : '-inf'
  if (Object.is(value, -0)) return '-0.0'
  const [mantissa, power] = value.toExponential().split('e') as [string, string]
  const exponent = Number(power)
  if (exponent < -4 || exponent >= 16) {
    return `${mantissa}e${exponent < 0 ? '-' : '+'}${String(Math.abs(exponent)).padStart(2, '0')}`
  }
  const digits = mantissa.replace(/[-.]/g, '')
  const sign = value < 0 ? '-' : ''
  if (exponent < 0) return `${sign}0.${'0'.repeat(-exponent - 1)}${digits}`
  const whole = digits.slice(0, exponent + 1).padEnd(exponent + 1, '0')
  return `${sign}${whole}.${digits.slice(exponent + 1) || '0'}`
}

const ESCAPES: Record<string, string> = { '\\': '\\\\', '\n': '\\n', '\r': '\\r', '\t': '\\t' }

function reprText(value: string): string {
  const quote = value.includes("'") && !value.includes('"') ? '"' : "'"
  const inner = value.replace(/[\\\n\r\t'"]|(?! )[\p{C}\p{Z}]/gu, (character) => {
    if (character === "'" || character === '"') return character === quote ? `\\${character}` : character
    const known = ESCAPES[character]
    if (known) return known
    const code = character.codePointAt(0)!
    if (code < 0x100) return `\\x${code.toString(16).padStart(2, '0')}`
    return code < 0x10000 ? `\\u${code.toString(16).padStart(4, '0')}` : `\\U${code.toString(16).padStart(8, '0')}`
  })
  return quote + inner + quote
}
