/** json.dumps as the `tojson` filter of Transformers calls it: not ASCII only, Python's separators, the order as it is. */
import { checkList, checkText } from './limits.ts'
import {
  compare,
  dictItems,
  isDict,
  isFloat,
  isNumeric,
  type Keywords,
  listItems,
  numberOf,
  Range,
  repr,
  reprFloat,
  truthy,
  typeName,
  type Value,
  View,
} from './values.ts'

interface Style {
  ascii: boolean
  /** Text of one level of indentation; undefined for one line. */
  indent: string | undefined
  itemSeparator: string
  keySeparator: string
  sortKeys: boolean
}

/** tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False) */
export function toJson(value: Value, args: Value[], keywords: Keywords): string {
  const [ascii, width, separators, sortKeys] = ['ensure_ascii', 'indent', 'separators', 'sort_keys'].map(
    (name, index) => args[index] ?? keywords?.get(name) ?? null,
  )
  const indent = typeof width === 'string' ? width : width === null ? undefined : spaces(Number(width))
  const [itemSeparator, keySeparator] = Array.isArray(separators)
    ? (separators as [string, string])
    : [indent === undefined ? ', ' : ',', ': ']
  const out = write(
    value,
    { ascii: truthy(ascii), indent, itemSeparator, keySeparator, sortKeys: truthy(sortKeys) },
    '\n',
  )
  checkText(out.length)
  return out
}

function write(value: Value, style: Style, line: string): string {
  if (value === null) return 'null'
  if (typeof value === 'string') return writeText(value, style.ascii)
  if (typeof value === 'boolean') return value ? 'true' : 'false'
  if (isNumeric(value)) return writeNumber(value)
  if (Array.isArray(value) && !(value instanceof Range || value instanceof View)) {
    const inner = style.indent === undefined ? line : line + style.indent
    return enclose(
      '[',
      ']',
      listItems(value).map((item) => write(item, style, inner)),
      style,
      line,
    )
  }
  if (Array.isArray(value) || !isDict(value))
    throw new Error(`Object of type ${typeName(value)} is not JSON serializable`)
  const items = dictItems(value)
  if (style.sortKeys) items.sort(([a], [b]) => compare(a, b))
  const inner = style.indent === undefined ? line : line + style.indent
  const members = items.map(
    ([key, item]) => `${writeKey(key, style.ascii)}${style.keySeparator}${write(item, style, inner)}`,
  )
  return enclose('{', '}', members, style, line)
}

function enclose(open: string, close: string, parts: string[], style: Style, line: string): string {
  checkList(parts.length)
  if (parts.length === 0) return open + close
  if (style.indent === undefined) return open + parts.join(style.itemSeparator) + close
  const inner = line + style.indent
  return open + inner + parts.join(style.itemSeparator + inner) + line + close
}

function spaces(count: number): string {
  checkText(Math.max(0, count))
  return ' '.repeat(Math.max(0, count))
}

function writeNumber(value: Parameters<typeof numberOf>[0]): string {
  if (!isFloat(value)) return repr(value)
  const number = numberOf(value)
  if (Number.isNaN(number)) return 'NaN'
  return Number.isFinite(number) ? reprFloat(number) : number > 0 ? 'Infinity' : '-Infinity'
}

function writeKey(key: Value, ascii: boolean): string {
  if (typeof key === 'string') return writeText(key, ascii)
  if (key === null) return '"null"'
  if (typeof key === 'boolean') return key ? '"true"' : '"false"'
  if (isNumeric(key)) return `"${writeNumber(key)}"`
  throw new Error(`keys must be str, int, float, bool or None, not ${typeName(key)}`)
}

function writeText(value: string, ascii: boolean): string {
  const json = JSON.stringify(value)
  if (!ascii) return json
  return json.replace(/[\x7f-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
}
