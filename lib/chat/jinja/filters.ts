/**
 * Jinja's filters. Left out are those that make HTML (escape, urlize, xmlattr, striptags); `safe` is the text itself.
 * Each takes the value, then the arguments as the template gives them.
 */
import { checkList, checkText } from './limits.ts'
import { capitalize, replace, strip } from './methods.ts'
import { concatenate, OPERATORS, percentFormat } from './operators.ts'
import { findTest } from './tests.ts'
import { toJson } from './tojson.ts'
import {
  characters,
  compare,
  type Dict,
  dictGet,
  dictItems,
  equal,
  Float,
  float,
  Generator,
  integer,
  isDict,
  isFloat,
  isInteger,
  isNumeric,
  iterate,
  type Keywords,
  lengthOf,
  listItem,
  Namespace,
  numberOf,
  SURROGATE,
  text,
  truthy,
  tuple,
  typeName,
  type Value,
} from './values.ts'

export type Filter = (value: Value, args: Value[], keywords: Keywords) => Value

export function findFilter(name: string): Filter | undefined {
  return Object.hasOwn(FILTERS, name) ? FILTERS[name] : undefined
}

/** An argument by place or name. */
function given(args: Value[], keywords: Keywords, index: number, name: string, otherwise: Value): Value {
  if (index < args.length) return args[index]
  return keywords?.has(name) ? keywords.get(name) : otherwise
}

/** `a.b.0` of an item, as the filters with `attribute` read it. */
function path(item: Value, attribute: Value): Value {
  if (isInteger(attribute)) return step(item, attribute)
  let value = item
  for (const part of text(attribute).split('.')) value = step(value, /^\d+$/.test(part) ? Number(part) : part)
  return value
}

function step(value: Value, key: Value): Value {
  if (value instanceof Namespace) return value.attributes.get(text(key))
  if (Array.isArray(value)) return isInteger(key) ? listItem(value, Number(key)) : undefined
  return isDict(value) ? dictGet(value, key) : undefined
}

/** Python's sort key: text without case unless asked for. */
function sortKey(value: Value, caseSensitive: Value): Value {
  return typeof value === 'string' && !truthy(caseSensitive) ? value.toLowerCase() : value
}

function sorted(items: readonly Value[], key: (item: Value) => Value, reverse: Value): Value[] {
  const keyed = items.map((item) => ({ item, key: key(item) }))
  // Stable in both directions, as Python's reverse=True is.
  keyed.sort((a, b) => (truthy(reverse) ? compare(b.key, a.key) : compare(a.key, b.key)))
  return keyed.map(({ item }) => item)
}

/** The test that `select('name', ...)` names; truth without a name. */
function predicate(args: Value[]): (value: Value) => boolean {
  if (args.length === 0) return truthy
  const name = text(args[0])
  const test = findTest(name)
  if (!test) throw new Error(`No test named '${name}'`)
  return (value) => test(value, args.slice(1))
}

function choose(keep: boolean): Filter {
  return (value, args) => {
    const holds = predicate(args)
    return new Generator(iterate(value).filter((item) => holds(item) === keep))
  }
}

function chooseByAttribute(keep: boolean): Filter {
  return (value, [attribute, ...args]) => {
    const holds = predicate(args)
    return new Generator(iterate(value).filter((item) => holds(path(item, attribute)) === keep))
  }
}

function map(value: Value, args: Value[], keywords: Keywords): Value {
  if (args.length === 0 && keywords?.has('attribute')) {
    const otherwise = keywords.get('default')
    return new Generator(iterate(value).map((item) => path(item, keywords.get('attribute')) ?? otherwise))
  }
  const name = text(args[0])
  const filter = findFilter(name)
  if (!filter) throw new Error(`No filter named '${name}'`)
  return new Generator(iterate(value).map((item) => filter(item, args.slice(1), keywords)))
}

function extreme(sign: 1 | -1): Filter {
  return (value, args, keywords) => {
    const caseSensitive = given(args, keywords, 0, 'case_sensitive', false)
    const attribute = given(args, keywords, 1, 'attribute', null)
    const key = (item: Value) => sortKey(attribute === null ? item : path(item, attribute), caseSensitive)
    let best: Value
    for (const [index, item] of iterate(value).entries()) {
      if (index === 0 || sign * compare(key(item), key(best)) > 0) best = item
    }
    return best
  }
}

function join(value: Value, args: Value[], keywords: Keywords): string {
  const separator = text(given(args, keywords, 0, 'd', ''))
  const attribute = given(args, keywords, 1, 'attribute', null)
  let out = ''
  for (const [index, item] of iterate(value).entries()) {
    const part = text(attribute === null ? item : path(item, attribute))
    out = concatenate(out, index > 0 ? separator + part : part)
  }
  return out
}

function spaces(count: number): string {
  checkText(Math.max(0, count))
  return ' '.repeat(Math.max(0, count))
}

function indent(value: Value, args: Value[], keywords: Keywords): string {
  const width = given(args, keywords, 0, 'width', 4)
  const first = truthy(given(args, keywords, 1, 'first', false))
  const blank = truthy(given(args, keywords, 2, 'blank', false))
  const prefix = typeof width === 'string' ? width : spaces(Number(width))
  const [head, ...lines] = text(value).split('\n')
  checkText(prefix.length * lines.length)
  const rest = lines.map((line) => (blank || line !== '' ? prefix + line : line))
  return [first ? prefix + head : head, ...rest].join('\n')
}

function toInteger(value: Value, args: Value[], keywords: Keywords): Value {
  const otherwise = given(args, keywords, 0, 'default', 0)
  const base = Number(given(args, keywords, 1, 'base', 10))
  if (isInteger(value)) return value
  if (isNumeric(value))
    return Number.isFinite(numberOf(value)) ? integer(BigInt(Math.trunc(numberOf(value)))) : otherwise
  if (typeof value !== 'string') return otherwise
  const digits = strip(value, undefined)
  if (base === 10) {
    if (/^[+-]?\d+(_\d+)*$/.test(digits)) return integer(BigInt(digits.replace(/[+_]/g, '')))
    const number = parseFloatLikePython(digits)
    return number === undefined || !Number.isFinite(number) ? otherwise : Math.trunc(number)
  }
  const number = Number.parseInt(digits, base)
  return Number.isNaN(number) ? otherwise : number
}

function parseFloatLikePython(value: string): number | undefined {
  return /^[+-]?(\d+(_\d+)*\.?\d*|\.\d+)([eE][+-]?\d+)?$/.test(value) ? Number(value.replaceAll('_', '')) : undefined
}

function toFloat(value: Value, args: Value[], keywords: Keywords): Value {
  if (isNumeric(value)) return float(numberOf(value))
  const number = typeof value === 'string' ? parseFloatLikePython(strip(value, undefined)) : undefined
  return number === undefined ? given(args, keywords, 0, 'default', new Float(0)) : float(number)
}

/** Halves go to the even neighbour, as Python rounds. */
function round(value: Value, args: Value[], keywords: Keywords): Value {
  if (!isNumeric(value)) throw new Error(`type ${typeName(value)} doesn't define __round__ method`)
  const precision = Number(given(args, keywords, 0, 'precision', 0))
  const method = given(args, keywords, 1, 'method', 'common')
  const scale = 10 ** precision
  const number = numberOf(value)
  if (method === 'ceil') return float(Math.ceil(number * scale) / scale)
  if (method === 'floor') return float(Math.floor(number * scale) / scale)
  if (precision > 0) return float(precision > 15 ? number : toEven(number, precision))
  const scaled = number * scale
  const low = Math.floor(scaled)
  const nearest = scaled - low === 0.5 ? low + (low % 2 === 0 ? 0 : 1) : Math.round(scaled)
  const result = nearest / scale
  return isInteger(value) ? result : float(result)
}

/** toFixed rounds by the exact digits, halves up; Python rounds halves to the even digit. */
function toEven(number: number, precision: number): number {
  const digits = Math.abs(number).toFixed(100)
  const cut = digits.length - 100 + precision
  const isHalf =
    /^50*$/.test(digits.slice(cut)) && Number(digits[cut - 1] === '.' ? digits[cut - 2] : digits[cut - 1]) % 2 === 0
  return isHalf ? Math.sign(number) * Number(digits.slice(0, cut)) : Number(number.toFixed(precision))
}

function atLeast1(value: Value, filter: string): number {
  if (isInteger(value) && Number(value) >= 1) return Number(value)
  throw new Error(`${filter} needs a number of at least 1`)
}

function slices(value: Value, args: Value[], keywords: Keywords): Value {
  const items = iterate(value)
  const count = atLeast1(given(args, keywords, 0, 'slices', 1), 'slice')
  checkList(count)
  const fill = given(args, keywords, 1, 'fill_with', null)
  const each = Math.floor(items.length / count)
  const longer = items.length % count
  let at = 0
  const parts = Array.from({ length: count }, (_, index) => {
    const part = items.slice(at, at + each + (index < longer ? 1 : 0))
    at += part.length
    return fill !== null && index >= longer && longer > 0 ? [...part, fill] : part
  })
  return new Generator(parts)
}

function batch(value: Value, args: Value[], keywords: Keywords): Value {
  const size = atLeast1(given(args, keywords, 0, 'linecount', 1), 'batch')
  checkList(size)
  const fill = given(args, keywords, 1, 'fill_with', null)
  const items = iterate(value)
  const rows: Value[][] = []
  for (let at = 0; at < items.length; at += size) rows.push(items.slice(at, at + size))
  const last = rows.at(-1)
  while (fill !== null && last && last.length < size) last.push(fill)
  return new Generator(rows)
}

function unique(value: Value, args: Value[], keywords: Keywords): Value {
  const caseSensitive = given(args, keywords, 0, 'case_sensitive', false)
  const attribute = given(args, keywords, 1, 'attribute', null)
  const seen: Value[] = []
  const first = iterate(value).filter((item) => {
    const key = sortKey(attribute === null ? item : path(item, attribute), caseSensitive)
    if (seen.some((other) => equal(other, key))) return false
    seen.push(key)
    return true
  })
  return new Generator(first)
}

function groupBy(value: Value, args: Value[], keywords: Keywords): Value {
  const attribute = given(args, keywords, 0, 'attribute', null)
  const otherwise = given(args, keywords, 1, 'default', undefined)
  const caseSensitive = given(args, keywords, 2, 'case_sensitive', false)
  const read = (item: Value) => path(item, attribute) ?? otherwise
  const groups: { key: Value; items: Value[] }[] = []
  for (const item of sorted(iterate(value), (entry) => sortKey(read(entry), caseSensitive), false)) {
    const last = groups.at(-1)
    if (last && equal(sortKey(read(last.items[0]), caseSensitive), sortKey(read(item), caseSensitive)))
      last.items.push(item)
    else groups.push({ key: read(item), items: [item] })
  }
  return groups.map(({ key, items }) => tuple(key, items))
}

function truncate(value: Value, args: Value[], keywords: Keywords): string {
  const length = Number(given(args, keywords, 0, 'length', 255))
  const killWords = truthy(given(args, keywords, 1, 'killwords', false))
  const end = text(given(args, keywords, 2, 'end', '...'))
  const leeway = Number(given(args, keywords, 3, 'leeway', 5) ?? 5)
  const parts = characters(text(value))
  if (parts.length <= length + leeway) return parts.join('')
  const cut = parts.slice(0, length - end.length).join('')
  return (killWords ? cut : cut.slice(0, cut.includes(' ') ? cut.lastIndexOf(' ') : undefined)) + end
}

const FILTERS: Record<string, Filter> = {
  tojson: toJson,
  safe: (value) => text(value),
  string: (value) => text(value),
  trim: (value, args, keywords) => {
    const set = given(args, keywords, 0, 'chars', null)
    return strip(text(value), set === null ? undefined : text(set))
  },
  upper: (value) => text(value).toUpperCase(),
  lower: (value) => text(value).toLowerCase(),
  capitalize: (value) => capitalize(text(value)),
  // Unlike str.title, only spaces and opening brackets begin a word.
  title: (value) =>
    text(value)
      .split(/([-\s({[<]+)/u)
      .map((part) => capitalize(part))
      .join(''),
  length: lengthOf,
  count: lengthOf,
  first: (value) => (value instanceof Generator ? value.next() : iterate(value)[0]),
  last: (value) => {
    if (value instanceof Generator) throw new Error("'generator' object is not reversible")
    return iterate(value).at(-1)
  },
  list: (value) => [...iterate(value)],
  reverse: (value) =>
    typeof value === 'string' ? characters(value).reverse().join('') : new Generator([...iterate(value)].reverse()),
  default: (value, args, keywords) => {
    const replaces = value === undefined || (truthy(given(args, keywords, 1, 'boolean', false)) && !truthy(value))
    return replaces ? given(args, keywords, 0, 'default_value', '') : value
  },
  items: (value) => {
    if (value === undefined) return new Generator([])
    if (!isDict(value)) throw new Error('Can only get item pairs from a mapping.')
    return new Generator(dictItems(value))
  },
  dictsort: (value, args, keywords) => {
    const caseSensitive = given(args, keywords, 0, 'case_sensitive', false)
    const place = given(args, keywords, 1, 'by', 'key') === 'value' ? 1 : 0
    const pairs = dictItems(value as Dict)
    return sorted(
      pairs,
      (pair) => sortKey((pair as Value[])[place], caseSensitive),
      given(args, keywords, 2, 'reverse', false),
    )
  },
  sort: (value, args, keywords) => {
    const caseSensitive = given(args, keywords, 1, 'case_sensitive', false)
    const attribute = given(args, keywords, 2, 'attribute', null)
    const key = (item: Value) => sortKey(attribute === null ? item : path(item, attribute), caseSensitive)
    return sorted(iterate(value), key, given(args, keywords, 0, 'reverse', false))
  },
  unique,
  groupby: groupBy,
  map,
  select: choose(true),
  reject: choose(false),
  selectattr: chooseByAttribute(true),
  rejectattr: chooseByAttribute(false),
  join,
  indent,
  replace: (value, [from, to, most]) =>
    replace(text(value), text(from), text(to), most === undefined || most === null ? -1 : Number(most)),
  int: toInteger,
  float: toFloat,
  abs: (value) => {
    if (!isNumeric(value)) throw new Error(`bad operand type for abs(): '${typeName(value)}'`)
    return isFloat(value) ? float(Math.abs(numberOf(value))) : numberOf(value) < 0 ? OPERATORS['-']!(0, value) : value
  },
  round,
  sum: (value, args, keywords) => {
    const attribute = given(args, keywords, 0, 'attribute', null)
    let total = given(args, keywords, 1, 'start', 0)
    for (const item of iterate(value)) total = OPERATORS['+']!(total, attribute === null ? item : path(item, attribute))
    return total
  },
  min: extreme(-1),
  max: extreme(1),
  batch,
  slice: slices,
  truncate,
  wordcount: (value) => text(value).match(/\w+/gu)?.length ?? 0,
  format: (value, args, keywords) =>
    percentFormat(text(value), keywords ? new Map<Value, Value>(keywords) : tuple(...args)),
  attr: (value, [name]) => (value instanceof Namespace ? value.attributes.get(text(name)) : undefined),
  center: (value, args, keywords) => {
    const parts = text(value)
    const missing =
      Number(given(args, keywords, 0, 'width', 80)) - (SURROGATE.test(parts) ? characters(parts).length : parts.length)
    const before = missing > 0 ? Math.floor(missing / 2) : 0
    return spaces(before) + parts + spaces(missing - before)
  },
}
FILTERS.d = FILTERS.default!
