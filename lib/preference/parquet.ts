/** Rows as a Parquet file, with the types that Arrow would give them: lists and structs where rows have lists and objects. */
import { ByteWriter, parquetWrite } from 'hyparquet-writer'
import { NUMBERS } from '../data/exact-json.ts'
import type { Json } from '../data/rows.ts'
import { TunesmithError } from '../errors.ts'

/** The type of a column or of a part of it; undefined as long as only null was seen. */
type Shape =
  | { kind: 'string' | 'boolean' | 'integer' | 'double' }
  | { kind: 'list'; element: Shape | undefined }
  | { kind: 'struct'; fields: Map<string, Shape | undefined> }

type SchemaElement = NonNullable<Parameters<typeof parquetWrite>[0]['schema']>[number]

/** Rows of one group: readers hold as many at once. */
const GROUP_ROWS = 10_000

/**
 * @throws TunesmithError `ERR_DATA_FORMAT` for a column whose values have no common type; JSON lines hold those
 */
export function parquetBytes(rows: readonly Json[]): Uint8Array {
  const shape = rows.reduce<Shape | undefined>((known, row) => merge(known, shapeOf(row, ''), ''), undefined)
  const fields = shape?.kind === 'struct' ? shape.fields : new Map<string, Shape | undefined>()
  const schema: SchemaElement[] = [{ name: 'schema', num_children: fields.size }]
  const columnData: { name: string; data: unknown[] }[] = []
  for (const [name, field] of fields) {
    schema.push(...schemaOf(name, field, name))
    columnData.push({ name, data: rows.map((row) => entryValue(row, name, field)) })
  }
  const writer = new ByteWriter()
  parquetWrite({ writer, schema, columnData, rowGroupSize: GROUP_ROWS, createdBy: 'tunesmith' })
  return new Uint8Array(writer.getBuffer())
}

function shapeOf(value: unknown, path: string): Shape | undefined {
  if (value === undefined || value === null) return undefined
  if (typeof value === 'string' || value instanceof Date) return { kind: 'string' }
  if (typeof value === 'boolean') return { kind: 'boolean' }
  if (typeof value === 'bigint') return { kind: 'integer' }
  if (typeof value === 'number') return { kind: Number.isSafeInteger(value) ? 'integer' : 'double' }
  if (value instanceof Float64Array) return { kind: 'list', element: { kind: 'double' } }
  if (Array.isArray(value)) {
    const shapes = value.map((_, index) => entryShape(value, index, path))
    return { kind: 'list', element: shapes.reduce((known, shape) => merge(known, shape, path), undefined) }
  }
  const keys = Object.keys(value)
  return { kind: 'struct', fields: new Map(keys.map((key) => [key, entryShape(value, key, join(path, key))])) }
}

/** A number's type is how it was spelt: 1.0 is no integer. */
function entryShape(container: object, key: string | number, path: string): Shape | undefined {
  const spelt = speltNumber(container, key)
  if (spelt === undefined) return shapeOf((container as Record<string | number, unknown>)[key], path)
  return { kind: isInt64(spelt) ? 'integer' : 'double' }
}

/** As the writer takes it: integers as bigint, structs without the notes of their rows. */
function entryValue(container: object, key: string | number, shape: Shape | undefined): unknown {
  const value = (container as Record<string | number, unknown>)[key]
  if (value === undefined || value === null || shape === undefined) return null
  switch (shape.kind) {
    case 'integer':
      return BigInt(speltNumber(container, key) ?? (value as number))
    case 'double':
      return Number(value)
    case 'list':
      return Array.from(value as ArrayLike<unknown>, (_, index) => entryValue(value, index, shape.element))
    case 'struct':
      return Object.fromEntries([...shape.fields].map(([name, field]) => [name, entryValue(value, name, field)]))
    default:
      return value instanceof Date ? value.toISOString() : value
  }
}

function speltNumber(container: object, key: string | number): string | undefined {
  return (container as { [NUMBERS]?: Record<string, string> })[NUMBERS]?.[key]
}

function isInt64(spelt: string): boolean {
  return /^-?\d+$/.test(spelt) && BigInt.asIntN(64, BigInt(spelt)) === BigInt(spelt)
}

function join(path: string, key: string): string {
  return path === '' ? key : `${path}.${key}`
}

function merge(a: Shape | undefined, b: Shape | undefined, path: string): Shape | undefined {
  if (a === undefined || b === undefined) return a ?? b
  if (a.kind === 'list' && b.kind === 'list') return { kind: 'list', element: merge(a.element, b.element, path) }
  if (a.kind === 'struct' && b.kind === 'struct') {
    const fields = new Map(a.fields)
    for (const [key, shape] of b.fields) fields.set(key, merge(fields.get(key), shape, join(path, key)))
    return { kind: 'struct', fields }
  }
  if (a.kind === b.kind) return a
  const numbers = ['integer', 'double']
  if (numbers.includes(a.kind) && numbers.includes(b.kind)) return { kind: 'double' }
  throw new TunesmithError(
    'ERR_DATA_FORMAT',
    `the column ${path} holds ${a.kind} and ${b.kind} values, which Parquet cannot; name the output .jsonl`,
  )
}

/** The elements of a column in Parquet's order: a parent before its children. What is null everywhere is text. */
function schemaOf(name: string, shape: Shape | undefined, path: string): SchemaElement[] {
  const optional = { name, repetition_type: 'OPTIONAL' } as const
  switch (shape?.kind) {
    case 'boolean':
      return [{ ...optional, type: 'BOOLEAN' }]
    case 'integer':
      return [{ ...optional, type: 'INT64' }]
    case 'double':
      return [{ ...optional, type: 'DOUBLE' }]
    case 'list':
      return [
        { ...optional, num_children: 1, converted_type: 'LIST' },
        { name: 'list', repetition_type: 'REPEATED', num_children: 1 },
        ...schemaOf('element', shape.element, path),
      ]
    case 'struct': {
      if (shape.fields.size === 0)
        throw new TunesmithError(
          'ERR_DATA_FORMAT',
          `the column ${path} holds empty objects only, which Parquet cannot; name the output .jsonl`,
        )
      const children = [...shape.fields].flatMap(([key, field]) => schemaOf(key, field, `${path}.${key}`))
      return [{ ...optional, num_children: shape.fields.size }, ...children]
    }
    default:
      return [{ ...optional, type: 'BYTE_ARRAY', converted_type: 'UTF8' }]
  }
}
