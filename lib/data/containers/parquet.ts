/**
 * The rows of a Parquet file, one row group after another. Nested lists and structs become plain JSON. Columns of a struct
 * that are null are left out: a table pads every struct to the keys of all, and no row wrote those keys. 64-bit integers
 * become numbers where a number holds them exactly.
 */
import { type FileHandle, open } from 'node:fs/promises'
import {
  type AsyncBuffer,
  type ColumnChunk,
  type FileMetaData,
  parquetMetadataAsync,
  parquetReadObjects,
  parquetSchema,
  type SchemaTree,
} from 'hyparquet'
import { TunesmithError } from '../../errors.ts'
import { isObject, type Json, RowProblem } from '../rows.ts'
import { codecs } from './parquet-codecs.ts'
import { checkGroup, chunkStart } from './parquet-pages.ts'
import type { RawRow } from './raw-row.ts'

const MAGIC = 'PAR1'
/** Magic, length of the footer and magic again. */
const SMALLEST_FILE = 12
const BATCH_ROWS = 1024

/**
 * Rows are numbered from 1.
 *
 * @throws TunesmithError `ERR_DATA_READ` where the file cannot be read or is corrupt, `ERR_DATA_FORMAT` where it is no
 * Parquet.
 */
export async function* readParquet(path: string): AsyncGenerator<RawRow[]> {
  let handle: FileHandle
  try {
    handle = await open(path)
  } catch (error) {
    throw unreadable(path, (error as Error).message, error)
  }
  try {
    const { size } = await handle.stat()
    await checkMagic(handle, size, path)
    const file = asyncBuffer(handle, size)
    const metadata = await readMetadata(file, path)
    let row = 0
    for (const [index, group] of metadata.row_groups.entries()) {
      const end = row + Number(group.num_rows)
      const rows = await readGroup({ file, metadata, compressors: codecs, rowStart: row, rowEnd: end }, path, index)
      for (let start = 0; start < rows.length; start += BATCH_ROWS) {
        const batch = rows.slice(start, start + BATCH_ROWS)
        yield batch.map((value) => rawRow(value, ++row))
      }
    }
  } finally {
    await handle.close()
  }
}

async function readMetadata(file: AsyncBuffer, path: string): Promise<FileMetaData> {
  let metadata: FileMetaData
  try {
    // Without its look for geometry, which a damaged schema keeps in an endless loop.
    metadata = await parquetMetadataAsync(file, { geoparquet: false })
  } catch (error) {
    throw unreadable(path, `its footer is corrupt (${(error as Error).message})`, error)
  }
  const counts = metadata.row_groups.map(({ num_rows }) => Number(num_rows))
  const total = counts.reduce((sum, count) => sum + count, 0)
  if (counts.some((count) => !Number.isSafeInteger(count) || count < 0) || total !== Number(metadata.num_rows)) {
    throw unreadable(path, `its footer is corrupt: ${metadata.num_rows} rows, but row groups of ${counts.join(', ')}`)
  }
  const leaves = leafPaths(metadata, path)
  for (const { columns } of metadata.row_groups) checkColumns(columns, leaves, file, path)
  return metadata
}

/** A group must have each column of the schema once: hyparquet leaves what is missing out, and loses errors of the rest. */
function checkColumns(
  columns: readonly ColumnChunk[],
  leaves: ReadonlySet<string>,
  file: AsyncBuffer,
  path: string,
): void {
  const found = new Set(columns.map(({ meta_data: column }) => column?.path_in_schema?.join('.') ?? ''))
  if (columns.length !== leaves.size || found.size !== leaves.size || [...found].some((name) => !leaves.has(name))) {
    throw unreadable(path, 'its footer is corrupt: the columns of a row group are not those of the schema')
  }
  for (const { meta_data: column } of columns) {
    const start = column ? chunkStart(column) : -1
    const size = Number(column?.total_compressed_size)
    if (!(start >= 0 && size >= 0 && start + size <= file.byteLength)) {
      throw unreadable(path, 'its footer is corrupt: a column lies outside the file')
    }
  }
}

function leafPaths(metadata: FileMetaData, path: string): Set<string> {
  const leaves = new Set<string>()
  const walk = ({ children, path: names }: SchemaTree): void => {
    if (children.length === 0) leaves.add(names.join('.'))
    for (const child of children) walk(child)
  }
  try {
    walk(parquetSchema(metadata))
  } catch (error) {
    throw unreadable(path, `its schema is corrupt (${(error as Error).message})`, error)
  }
  return leaves
}

async function readGroup(options: Parameters<typeof parquetReadObjects>[0], path: string, index: number) {
  const expected = options.rowEnd! - options.rowStart!
  let rows: Json[]
  try {
    await checkGroup(options.file, options.metadata!, options.metadata!.row_groups[index]!)
    rows = await parquetReadObjects(options)
  } catch (error) {
    const what = `row group ${index + 1} cannot be decoded (${(error as Error).message})`
    throw unreadable(path, `${what}: it is corrupt, or uses an encoding that is not read`, error)
  }
  if (rows.length === expected) return rows
  throw unreadable(path, `row group ${index + 1} is corrupt: it has ${rows.length} of ${expected} rows`)
}

function rawRow(row: Json, line: number): RawRow {
  try {
    const value: Json = {}
    for (const [key, cell] of Object.entries(row)) {
      const plain = plainJson(cell, key, 0)
      if (plain !== undefined && plain !== null) value[key] = plain
    }
    return { line, value }
  } catch (error) {
    if (!(error instanceof RowProblem)) throw error
    return { line, problem: error }
  }
}

/** Levels of lists and structs; a schema with more is no data set. */
const DEEPEST = 200

function plainJson(value: unknown, field: string, depth: number): unknown {
  if (depth > DEEPEST) throw new RowProblem(field, 'is nested too deep')
  if (typeof value === 'bigint') {
    const number = Number(value)
    if (Number.isSafeInteger(number)) return number
    // A column of its own, such as an id, may never be looked at; inside a message it would be.
    if (depth === 0) return value
    throw new RowProblem(field, `is ${value}, which a number does not hold exactly; store it as text`)
  }
  if (Array.isArray(value))
    return value.map((entry, index) => plainJson(entry, `${field}[${index}]`, depth + 1) ?? null)
  if (value instanceof Date) return value.toISOString()
  if (ArrayBuffer.isView(value) && !(value instanceof Uint8Array) && !(value instanceof DataView)) {
    return plainJson([...(value as unknown as Iterable<unknown>)], field, depth)
  }
  if (!isObject(value) || value instanceof Uint8Array) return value
  const entries = Object.entries(value).map(
    ([key, entry]) => [key, plainJson(entry, `${field}.${key}`, depth + 1)] as const,
  )
  return Object.fromEntries(entries.filter(([, entry]) => entry !== null && entry !== undefined))
}

async function checkMagic(handle: FileHandle, size: number, path: string): Promise<void> {
  const at = async (position: number) => {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(4), 0, 4, position)
    return buffer.toString('latin1', 0, bytesRead)
  }
  if (size < 4 || (await at(0)) !== MAGIC) {
    throw new TunesmithError(
      'ERR_DATA_FORMAT',
      `Cannot read ${path}: its content is not Parquet, whatever its name says`,
    )
  }
  if (size < SMALLEST_FILE || (await at(size - 4)) !== MAGIC) {
    throw unreadable(path, 'it is cut short: the footer of the Parquet file is missing')
  }
}

function asyncBuffer(handle: FileHandle, byteLength: number): AsyncBuffer {
  return {
    byteLength,
    async slice(start, end = byteLength) {
      const from = start < 0 ? byteLength + start : start
      const to = end < 0 ? byteLength + end : end
      const bytes = new Uint8Array(Math.max(0, to - from))
      for (let done = 0; done < bytes.length; ) {
        const { bytesRead } = await handle.read(bytes, done, bytes.length - done, from + done)
        if (bytesRead === 0) throw new Error('unexpected end of file')
        done += bytesRead
      }
      return bytes.buffer
    },
  }
}

function unreadable(path: string, why: string, cause?: unknown): TunesmithError {
  return new TunesmithError('ERR_DATA_READ', `Cannot read ${path}: ${why}`, { cause })
}
