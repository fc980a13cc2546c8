/**
 * A look at the pages of a column chunk before hyparquet decodes them. It trusts the lengths it reads: a run that claims
 * to repeat a value two thousand million times makes its arrays grow until V8 ends the process, which no handler catches
 * (found by scripts/fuzz/readers.ts). Here such lengths are found and refused; everything else it refuses by itself. Its
 * inner modules are used for that, so package.json names one version of it exactly.
 */
import type { AsyncBuffer, ColumnMetaData, FileMetaData, PageHeader, RowGroup, SchemaTree } from 'hyparquet'
import { parquetHeader } from 'hyparquet/src/column.js'
import { decompressPage } from 'hyparquet/src/datapage.js'
import { getMaxDefinitionLevel, getMaxRepetitionLevel, getSchemaPath } from 'hyparquet/src/schema.js'
import { codecs } from './parquet-codecs.ts'

/** Values of a column in one row group; V8's arrays end at some more, and row groups are made for less. */
const MOST_VALUES = 1 << 26
/** A page of more is no page. */
const MOST_PAGE_BYTES = 1 << 30
/** Bit-packed runs come in groups of eight; the last may be padded, by some writers more than to the next eight. */
const PADDING = 1024

/** @throws Error that says what of the row group cannot be decoded; the chunks must lie inside the file */
export async function checkGroup(file: AsyncBuffer, metadata: FileMetaData, group: RowGroup): Promise<void> {
  for (const { meta_data: column } of group.columns) {
    const start = chunkStart(column!)
    const chunk = await file.slice(start, start + Number(column!.total_compressed_size))
    checkPages(chunk, column!, getSchemaPath(metadata.schema, column!.path_in_schema))
  }
}

/** First byte of a column chunk. */
export function chunkStart({ dictionary_page_offset: dictionary, data_page_offset: data }: ColumnMetaData): number {
  return Number(dictionary || data)
}

function checkPages(chunk: ArrayBuffer, column: ColumnMetaData, schemaPath: SchemaTree[]): void {
  const reader = { view: new DataView(chunk), offset: 0 }
  const levels = {
    repetition: getMaxRepetitionLevel(schemaPath),
    definition: getMaxDefinitionLevel(schemaPath),
  }
  if (Number(column.num_values) > MOST_VALUES)
    throw new Error(`a column of ${column.num_values} values in one row group`)
  // As hyparquet ends: a single byte left over is none.
  while (reader.offset < chunk.byteLength - 1) {
    const header = parquetHeader(reader)
    const { compressed_page_size: size, uncompressed_page_size: whole } = header
    if (!(size >= 0 && reader.offset + size <= chunk.byteLength && whole >= 0 && whole <= MOST_PAGE_BYTES)) {
      throw new Error(`a page of ${size} bytes (${whole} unpacked)`)
    }
    checkPage(new Uint8Array(chunk, reader.offset, size), header, column, levels)
    reader.offset += size
  }
}

interface Levels {
  repetition: number
  definition: number
}

function checkPage(bytes: Uint8Array, header: PageHeader, column: ColumnMetaData, levels: Levels): void {
  const { data_page_header: v1, data_page_header_v2: v2, dictionary_page_header: dictionary } = header
  const unpack = (packed: Uint8Array, size: number) => decompressPage(packed, size, column.codec, codecs)
  if (dictionary) {
    // An entry has at least a bit.
    checkCount(dictionary.num_values, 8 * header.uncompressed_page_size)
  } else if (v1) {
    checkCount(v1.num_values, Number(column.num_values))
    const page = unpack(bytes, header.uncompressed_page_size)
    let at = 0
    let present = v1.num_values
    for (const level of [levels.repetition, levels.definition]) {
      if (level === 0) continue
      const counted = countRuns(page, at + 4, bitWidth(level), v1.num_values, level)
      if (level === levels.definition) present = counted
      at += 4 + uint32(page, at)
    }
    checkValues(page, at, v1.encoding, column.type, present)
  } else if (v2) {
    const { repetition_levels_byte_length: repetition, definition_levels_byte_length: definition } = v2
    checkCount(v2.num_values, Number(column.num_values))
    if (!(repetition >= 0 && definition >= 0 && repetition + definition <= bytes.length)) {
      throw new Error('a page whose levels are longer than itself')
    }
    if (levels.repetition > 0) countRuns(bytes, 0, bitWidth(levels.repetition), v2.num_values, levels.repetition)
    if (levels.definition > 0)
      countRuns(bytes, repetition, bitWidth(levels.definition), v2.num_values, levels.definition)
    const size = header.uncompressed_page_size - repetition - definition
    const packed = bytes.subarray(repetition + definition)
    const page = v2.is_compressed !== false && size > 0 ? unpack(packed, size) : packed
    checkValues(page, 0, v2.encoding, column.type, v2.num_values - v2.num_nulls)
  }
}

function checkCount(count: number, limit: number): void {
  if (!(count >= 0 && count <= Math.min(limit, MOST_VALUES))) throw new Error(`a page of ${count} values`)
}

function checkValues(page: Uint8Array, at: number, encoding: string, type: string, count: number): void {
  checkCount(count, MOST_VALUES)
  if (encoding === 'PLAIN') {
    if (count > 8 * Math.max(0, page.length - at)) throw new Error(`${count} values in ${page.length - at} bytes`)
  } else if (encoding === 'RLE' && type === 'BOOLEAN') {
    countRuns(page, at + 4, 1, count, 1)
  } else if (/RLE|DICTIONARY/.test(encoding) && count > 0) {
    const width = page[at] ?? 0
    if (width > 32) throw new Error(`indices of ${width} bits`)
    if (width > 0) countRuns(page, at + 1, width, count, 0)
  }
}

/**
 * Walks a mix of repeated and bit-packed runs of `count` values; how many of them are `wanted`, where `width` is at most 8.
 *
 * @throws Error where a run is longer than what is left, or the bytes end
 */
function countRuns(bytes: Uint8Array, start: number, width: number, count: number, wanted: number): number {
  let at = start
  let seen = 0
  let found = 0
  while (seen < count) {
    let header = 0
    for (let shift = 0; ; shift += 7) {
      if (at >= bytes.length || shift > 28) throw new Error('a run that has no end')
      const byte = bytes[at++]!
      header |= (byte & 0x7f) << shift
      if (byte < 0x80) break
    }
    const left = count - seen
    if (header & 1) {
      const groups = header >>> 1
      if (groups > (left + PADDING) / 8) throw new Error(`a run of ${8 * groups} values where ${left} are left`)
      if (width <= 8) found += countPacked(bytes, at, width, Math.min(left, 8 * groups), wanted)
      at += groups * width
      seen += 8 * groups
    } else {
      const run = header >>> 1
      if (run > left) throw new Error(`a run of ${run} values where ${left} are left`)
      if (bytes[at] === wanted) found += run
      at += (width + 7) >> 3
      seen += run
    }
  }
  return found
}

function countPacked(bytes: Uint8Array, at: number, width: number, count: number, wanted: number): number {
  const mask = (1 << width) - 1
  let found = 0
  for (let i = 0, bit = 0; i < count; i++, bit += width) {
    const byte = at + (bit >> 3)
    const pair = (bytes[byte] ?? 0) | ((bytes[byte + 1] ?? 0) << 8)
    if (((pair >> (bit & 7)) & mask) === wanted) found++
  }
  return found
}

function bitWidth(level: number): number {
  return 32 - Math.clz32(level)
}

function uint32(bytes: Uint8Array, at: number): number {
  return (
    (bytes[at] ?? 0) + (bytes[at + 1] ?? 0) * 2 ** 8 + (bytes[at + 2] ?? 0) * 2 ** 16 + (bytes[at + 3] ?? 0) * 2 ** 24
  )
}
