/** Methods of Python's str, dict and list, those that read. The sandbox of Transformers forbids the ones that write. */
import { checkList, checkText } from './limits.ts'
import { concatenate } from './operators.ts'
import {
  type Callable,
  characters,
  type Dict,
  dictGet,
  dictHas,
  dictItems,
  dictKeys,
  equal,
  isDict,
  isInteger,
  iterate,
  type Keywords,
  listItem,
  text,
  textLength,
  tuple,
  typeName,
  type Value,
  View,
  view,
} from './values.ts'

type Method<T> = (self: T, args: Value[], keywords: Keywords) => Value

/** The method of that name, bound; undefined where the type has none. */
export function methodsOf(object: Value, name: string): Callable | undefined {
  const method = findMethod(object, name)
  return method && ((args, keywords) => method(object, args, keywords))
}

/** The method of that name, which takes the object first. */
export function findMethod(object: Value, name: string): Method<Value> | undefined {
  if (typeof object === 'string') checkText(object.length)
  const methods =
    typeof object === 'string'
      ? STRING
      : Array.isArray(object) && !(object instanceof View)
        ? LIST
        : isDict(object)
          ? DICT
          : undefined
  return methods && Object.hasOwn(methods, name) ? (methods[name] as Method<Value>) : undefined
}

/** Python's str.isspace: Unicode's white space and the four separators U+001C to U+001F, but not U+FEFF as in trim(). */
export function isSpace(character: string): boolean {
  const code = character.charCodeAt(0)
  if (code < 0x80) return code === 0x20 || (code >= 0x09 && code <= 0x0d) || (code >= 0x1c && code <= 0x1f)
  return /\p{White_Space}/u.test(character)
}

/** Python's str.strip; of white space without `set`. */
export function strip(value: string, set: string | undefined, left = true, right = true): string {
  const strips = set === undefined ? isSpace : (character: string) => set.includes(character)
  let start = 0
  let end = value.length
  if (set !== undefined && /[\ud800-\udfff]/.test(set)) {
    const parts = characters(value)
    const wanted = new Set(characters(set))
    let from = 0
    let to = parts.length
    while (left && from < to && wanted.has(parts[from]!)) from++
    while (right && to > from && wanted.has(parts[to - 1]!)) to--
    return parts.slice(from, to).join('')
  }
  while (left && start < end && strips(value[start]!)) start++
  while (right && end > start && strips(value[end - 1]!)) end--
  return value.slice(start, end)
}

function stripping(left: boolean, right: boolean): Method<string> {
  return (self, [set]) => {
    if (set !== undefined && set !== null && typeof set !== 'string') {
      throw new Error(`strip arg must be None or str, not ${typeName(set)}`)
    }
    return strip(self, set ?? undefined, left, right)
  }
}

function textArgument(value: Value, method: string): string {
  if (typeof value === 'string') return value
  throw new Error(`${method}() argument must be str, not ${typeName(value)}`)
}

function count(value: Value, otherwise: number): number {
  return isInteger(value) || typeof value === 'boolean' ? Number(value) : otherwise
}

function affix(method: 'startsWith' | 'endsWith'): Method<string> {
  return (self, [given, start, end]) => {
    const part = start === undefined && end === undefined ? self : range(self, start, end)
    const options = Array.isArray(given) ? given : [given]
    return options.some((option) => part[method](textArgument(option, method.toLowerCase())))
  }
}

function range(self: string, start: Value, end: Value): string {
  const parts = characters(self)
  return parts.slice(count(start, 0), count(end, parts.length)).join('')
}

/** Python's str.split and str.rsplit. */
function split(self: string, separator: Value, most: number, right: boolean): string[] {
  if (separator === undefined || separator === null) return splitSpace(self, most, right)
  const by = textArgument(separator, 'split')
  if (by === '') throw new Error('empty separator')
  const parts = self.split(by)
  checkList(parts.length)
  if (most < 0 || parts.length <= most + 1) return parts
  return right
    ? [parts.slice(0, parts.length - most).join(by), ...parts.slice(parts.length - most)]
    : [...parts.slice(0, most), parts.slice(most).join(by)]
}

function splitSpace(self: string, most: number, right: boolean): string[] {
  const words: [start: number, end: number][] = []
  for (let at = 0; at < self.length; ) {
    while (at < self.length && isSpace(self[at]!)) at++
    const start = at
    while (at < self.length && !isSpace(self[at]!)) at++
    if (at > start) words.push([start, at])
  }
  checkList(words.length)
  const slices = (list: typeof words) => list.map(([start, end]) => self.slice(start, end))
  if (most < 0 || words.length <= most) return slices(words)
  if (words.length === 0) return []
  if (right) {
    const kept = words.slice(words.length - most)
    const head = words[words.length - most - 1]
    return head ? [strip(self.slice(0, head[1]), undefined, false), ...slices(kept)] : slices(kept)
  }
  const head = words.slice(0, most)
  const rest = words[most]
  return rest ? [...slices(head), strip(self.slice(rest[0]), undefined, true, false)] : slices(head)
}

export function replace(self: string, from: string, to: string, most: number): string {
  if (most === 0) return self
  if (from === '') {
    const parts = characters(self)
    const places = most < 0 ? parts.length + 1 : Math.min(most, parts.length + 1)
    checkText(self.length + places * to.length)
    return parts.map((part, index) => (index < places ? to : '') + part).join('') + (places > parts.length ? to : '')
  }
  const parts = self.split(from)
  const times = most < 0 ? parts.length - 1 : Math.min(most, parts.length - 1)
  checkText(self.length + times * to.length)
  const head = parts.slice(0, times + 1).join(to)
  const rest = parts.slice(times + 1)
  return rest.length > 0 ? head + from + rest.join(from) : head
}

function find(self: string, wanted: Value, last: boolean): number {
  const needle = textArgument(wanted, 'find')
  const at = last ? self.lastIndexOf(needle) : self.indexOf(needle)
  return at < 0 ? -1 : textLength(self.slice(0, at))
}

function orMissing(at: number): number {
  if (at < 0) throw new Error('substring not found')
  return at
}

function every(self: string, pattern: RegExp): boolean {
  return self !== '' && characters(self).every((character) => pattern.test(character))
}

function cased(self: string, one: (text: string) => string): boolean {
  return one(self) === self && self.toUpperCase() !== self.toLowerCase()
}

function pad(self: string, width: Value, fill: Value, left: boolean, right: boolean): string {
  const missing = count(width, 0) - textLength(self)
  if (missing <= 0) return self
  checkText(missing)
  const character = fill === undefined ? ' ' : textArgument(fill, 'pad')
  if (left && right) {
    // Python puts the odd one on the left where the width is odd.
    const before = Math.floor(missing / 2) + (missing & count(width, 0) & 1)
    return character.repeat(before) + self + character.repeat(missing - before)
  }
  return left ? character.repeat(missing) + self : self + character.repeat(missing)
}

/** Words start with a capital; every other letter is small. */
function title(self: string): string {
  return self.replace(/\p{Cased}+/gu, (word) => {
    const [first, ...rest] = characters(word)
    return first!.toUpperCase() + rest.join('').toLowerCase()
  })
}

export function capitalize(self: string): string {
  const [first, ...rest] = characters(self)
  return first === undefined ? '' : first.toUpperCase() + rest.join('').toLowerCase()
}

/** `'{} {name}'.format(...)`, without format specifications. */
function format(self: string, args: Value[], keywords: Keywords): string {
  let next = 0
  return self.replace(/\{\{|\}\}|\{([^{}]*)\}/g, (found, field: string | undefined) => {
    if (found === '{{') return '{'
    if (found === '}}') return '}'
    if (!/^\w*$/.test(field!)) throw new Error(`the format {${field}} is not supported`)
    const isName = !/^\d*$/.test(field!)
    const index = field === '' ? next++ : Number(field)
    if (isName ? !keywords?.has(field!) : index >= args.length) throw new Error(`format() has no value for {${field}}`)
    return text(isName ? keywords!.get(field!) : args[index])
  })
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: Python ends lines at the separators U+001C to U+001E too
const LINE_END = /\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/g

function splitLines(self: string, keepEnds: boolean): string[] {
  const lines: string[] = []
  let start = 0
  for (const { 0: end, index } of self.matchAll(LINE_END)) {
    lines.push(self.slice(start, keepEnds ? index + end.length : index))
    start = index + end.length
  }
  if (start < self.length) lines.push(self.slice(start))
  return lines
}

function partition(self: string, separator: Value, right: boolean): Value {
  const by = textArgument(separator, 'partition')
  if (by === '') throw new Error('empty separator')
  const at = right ? self.lastIndexOf(by) : self.indexOf(by)
  if (at < 0) return right ? tuple('', '', self) : tuple(self, '', '')
  return tuple(self.slice(0, at), by, self.slice(at + by.length))
}

const STRING: Record<string, Method<string>> = {
  upper: (self) => self.toUpperCase(),
  lower: (self) => self.toLowerCase(),
  casefold: (self) => self.toLowerCase().replaceAll('ß', 'ss'),
  swapcase: (self) =>
    characters(self)
      .map((c) => (c === c.toUpperCase() ? c.toLowerCase() : c.toUpperCase()))
      .join(''),
  title,
  capitalize,
  strip: stripping(true, true),
  lstrip: stripping(true, false),
  rstrip: stripping(false, true),
  startswith: affix('startsWith'),
  endswith: affix('endsWith'),
  split: (self, [by, most], keywords) =>
    split(self, by ?? keywords?.get('sep'), count(most ?? keywords?.get('maxsplit'), -1), false),
  rsplit: (self, [by, most], keywords) =>
    split(self, by ?? keywords?.get('sep'), count(most ?? keywords?.get('maxsplit'), -1), true),
  splitlines: (self, [keepEnds], keywords) => splitLines(self, Boolean(keepEnds ?? keywords?.get('keepends'))),
  partition: (self, [by]) => partition(self, by, false),
  rpartition: (self, [by]) => partition(self, by, true),
  replace: (self, [from, to, most], keywords) =>
    replace(
      self,
      textArgument(from, 'replace'),
      textArgument(to, 'replace'),
      count(most ?? keywords?.get('count'), -1),
    ),
  removeprefix: (self, [prefix]) => {
    const start = textArgument(prefix, 'removeprefix')
    return self.startsWith(start) ? self.slice(start.length) : self
  },
  removesuffix: (self, [suffix]) => {
    const end = textArgument(suffix, 'removesuffix')
    return end !== '' && self.endsWith(end) ? self.slice(0, -end.length) : self
  },
  find: (self, [wanted]) => find(self, wanted, false),
  rfind: (self, [wanted]) => find(self, wanted, true),
  index: (self, [wanted]) => orMissing(find(self, wanted, false)),
  rindex: (self, [wanted]) => orMissing(find(self, wanted, true)),
  count: (self, [wanted]) => {
    const needle = textArgument(wanted, 'count')
    return needle === '' ? textLength(self) + 1 : self.split(needle).length - 1
  },
  join: (self, [list]) => {
    const parts = iterate(list)
    let out = ''
    for (const [index, part] of parts.entries()) {
      if (typeof part !== 'string')
        throw new Error(`sequence item ${index}: expected str instance, ${typeName(part)} found`)
      out = concatenate(out, index > 0 ? self + part : part)
    }
    return out
  },
  format,
  isdigit: (self) => every(self, /[\p{Nd}²³¹⁰⁴-⁹₀-₉]/u),
  isdecimal: (self) => every(self, /\p{Nd}/u),
  isnumeric: (self) => every(self, /\p{N}/u),
  isalpha: (self) => every(self, /\p{L}/u),
  isalnum: (self) => every(self, /[\p{L}\p{N}]/u),
  isspace: (self) => self !== '' && characters(self).every(isSpace),
  isupper: (self) => cased(self, (value) => value.toUpperCase()),
  islower: (self) => cased(self, (value) => value.toLowerCase()),
  zfill: (self, [width]) => {
    const sign = /^[+-]/.exec(self)?.[0] ?? ''
    return sign + pad(self.slice(sign.length), count(width, 0) - sign.length, '0', true, false)
  },
  ljust: (self, [width, fill]) => pad(self, width, fill, false, true),
  rjust: (self, [width, fill]) => pad(self, width, fill, true, false),
  center: (self, [width, fill]) => pad(self, width, fill, true, true),
}

function forbidden(type: string, names: readonly string[]): Record<string, Method<Value>> {
  const refuse = (name: string) => () => {
    throw new Error(`access to attribute '${name}' of '${type}' object is unsafe`)
  }
  return Object.fromEntries(names.map((name) => [name, refuse(name)]))
}

const DICT: Record<string, Method<Dict>> = {
  get: (self, args) => (dictHas(self, args[0]) ? dictGet(self, args[0]) : args.length > 1 ? args[1] : null),
  items: (self) => view(dictItems(self)),
  keys: (self) => view(dictKeys(self)),
  values: (self) => view(dictKeys(self).map((key) => dictGet(self, key))),
  copy: (self) => new Map(dictItems(self) as unknown as [Value, Value][]),
  ...forbidden('dict', ['clear', 'pop', 'popitem', 'setdefault', 'update']),
}

const LIST: Record<string, Method<readonly Value[]>> = {
  index: (self, [wanted]) => {
    const at = self.findIndex((_, index) => equal(listItem(self, index), wanted))
    if (at < 0) throw new Error(`${text(wanted)} is not in list`)
    return at
  },
  count: (self, [wanted]) => self.filter((_, index) => equal(listItem(self, index), wanted)).length,
  copy: (self) => [...iterate(self)],
  ...forbidden('list', ['append', 'clear', 'extend', 'insert', 'pop', 'remove', 'reverse', 'sort']),
}
