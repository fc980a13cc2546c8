/**
 * The header of a safetensors file: an unsigned 64-bit little-endian length, then that many bytes of JSON which give
 * each tensor's dtype, shape and byte range in the data that follows. A file comes from anywhere, so nothing in the
 * header is believed before it is checked: the ranges must tile the data exactly, without overlap, gap or excess.
 */

import { TunesmithError } from '../errors.ts'
import type { StorageType } from '../native/addon.ts'
import { describe, isObject, RawObject } from './json.ts'

/** Bound of the format itself; a model with 100,000 tensors needs about 15 MB. */
export const maxHeaderBytes = 100_000_000

export interface TensorInfo {
  name: string
  /** As the file writes it, e.g. 'F32', 'BF16'. */
  dtype: string
  shape: number[]
  elements: number
  /** First byte, counted from the start of the data area. */
  begin: number
  /** One past the last byte. */
  end: number
}

export interface SafetensorsHeader {
  tensors: TensorInfo[]
  metadata: Record<string, string>
  /** Where the data area starts in the file. */
  dataStart: number
}

/** Bits per element of every dtype of the format. Parameters may only have those of `storageTypes`. */
const namesOfBits: Record<number, string> = {
  4: 'F4',
  6: 'F6_E2M3 F6_E3M2',
  8: 'BOOL U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ',
  16: 'I16 U16 F16 BF16',
  32: 'I32 U32 F32',
  64: 'I64 U64 F64 C64',
}
const bitsOf: Record<string, number> = Object.fromEntries(
  Object.entries(namesOfBits).flatMap(([bits, names]) => names.split(' ').map((name) => [name, Number(bits)] as const)),
)

const storageTypes: Record<string, StorageType> = { F64: 'float64', F32: 'float32', F16: 'float16', BF16: 'bfloat16' }
const fileTypes = { float64: 'F64', float32: 'F32', float16: 'F16', bfloat16: 'BF16' } as const
const bytesOf = { float64: 8, float32: 4, float16: 2, bfloat16: 2 } as const

/** 'F32' → 'float32'; undefined for dtypes a parameter cannot have. */
export function storageTypeOf(dtype: string): StorageType | undefined {
  return Object.hasOwn(storageTypes, dtype) ? storageTypes[dtype] : undefined
}

/** 'float32' → 'F32'. */
export function fileTypeOf(type: StorageType): string {
  return fileTypes[type]
}

/** Bytes of one element. */
export function sizeOf(type: StorageType): number {
  return bytesOf[type]
}

export function elementsOf(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1)
}

/**
 * Checks the length prefix against the file before anything is read or allocated.
 *
 * @param prefix the file's first 8 bytes, or fewer where it is shorter
 * @param fileBytes size of the file
 * @param path names the file in errors
 * @returns length of the JSON that follows
 * @throws ERR_SAFETENSORS_TRUNCATED, ERR_SAFETENSORS_HEADER
 */
export function headerLength(prefix: Uint8Array, fileBytes: number, path: string): number {
  if (prefix.length < 8) {
    throw truncated(path, `a header length of 8 bytes expected, the file has ${fileBytes}`)
  }
  const length = new DataView(prefix.buffer, prefix.byteOffset, 8).getBigUint64(0, true)
  if (length > BigInt(maxHeaderBytes)) {
    throw bad(
      path,
      `its header would take ${length} bytes, over the limit of ${maxHeaderBytes}; this is no safetensors file`,
    )
  }
  if (8 + Number(length) > fileBytes) {
    throw truncated(path, `8 + ${length} bytes of header expected, the file has ${fileBytes}`)
  }
  return Number(length)
}

/**
 * Parses and checks the JSON of a header.
 *
 * @param json the header's bytes
 * @param fileBytes size of the whole file
 * @param path names the file in errors
 * @throws ERR_SAFETENSORS_HEADER, ERR_SAFETENSORS_TRUNCATED
 */
export function parseHeader(json: Uint8Array, fileBytes: number, path: string): SafetensorsHeader {
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(json)
  } catch (error) {
    throw bad(path, 'its header is not UTF-8', error)
  }
  if (!text.startsWith('{')) throw bad(path, `its header must start with '{', not ${describe(text.slice(0, 10))}`)
  const { value } = RawObject.parse(text, `the header of ${path}`, 'ERR_SAFETENSORS_HEADER')
  const metadata = parseMetadata(value.__metadata__, path)
  const tensors: TensorInfo[] = []
  for (const [name, entry] of Object.entries(value)) {
    if (name !== '__metadata__') tensors.push(parseEntry(name, entry, path))
  }
  const dataStart = 8 + json.length
  checkTiling(tensors, fileBytes - dataStart, path)
  return { tensors, metadata, dataStart }
}

/**
 * The bytes that come before the data: length prefix and JSON, padded with spaces so that the data starts at a multiple
 * of 8. Tensors are laid out in the given order; wider dtypes must come first for each to be aligned to its size.
 */
export function buildHeader(
  tensors: readonly { name: string; type: StorageType; shape: readonly number[] }[],
): Uint8Array {
  let offset = 0
  const entries = tensors.map(({ name, type, shape }) => {
    const begin = offset
    offset += elementsOf(shape) * sizeOf(type)
    return [name, { dtype: fileTypeOf(type), shape, data_offsets: [begin, offset] }]
  })
  const header = { __metadata__: { format: 'pt' }, ...Object.fromEntries(entries) }
  const json = new TextEncoder().encode(JSON.stringify(header))
  const padded = Math.ceil(json.length / 8) * 8
  const bytes = new Uint8Array(8 + padded).fill(0x20)
  new DataView(bytes.buffer).setBigUint64(0, BigInt(padded), true)
  bytes.set(json, 8)
  return bytes
}

function parseMetadata(value: unknown, path: string): Record<string, string> {
  if (value === undefined) return {}
  if (!isObject(value) || Object.values(value).some((entry) => typeof entry !== 'string')) {
    throw bad(path, `__metadata__ must map names to strings, not ${describe(value)}`)
  }
  return value as Record<string, string>
}

function parseEntry(name: string, entry: unknown, path: string): TensorInfo {
  const where = `tensor ${JSON.stringify(name)}`
  if (!isObject(entry)) throw bad(path, `${where} must be an object, not ${describe(entry)}`)
  for (const key of Object.keys(entry)) {
    if (key !== 'dtype' && key !== 'shape' && key !== 'data_offsets')
      throw bad(path, `${where} has the unknown field ${describe(key)}`)
  }
  const { dtype, shape, data_offsets: offsets } = entry
  if (typeof dtype !== 'string' || !Object.hasOwn(bitsOf, dtype)) {
    throw bad(path, `${where} has the unknown dtype ${describe(dtype)}`)
  }
  if (!Array.isArray(shape) || !shape.every(isSize)) {
    throw bad(path, `the shape of ${where} must be a list of sizes, not ${describe(shape)}`)
  }
  const elements = elementsOf(shape)
  if (!Number.isSafeInteger(elements * 8))
    throw bad(path, `the shape of ${where}, ${describe(shape)}, is too large to exist`)
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize)) {
    throw bad(path, `data_offsets of ${where} must be [begin, end], not ${describe(offsets)}`)
  }
  const [begin, end] = offsets as [number, number]
  const bits = elements * bitsOf[dtype]!
  if (begin > end || bits % 8 !== 0 || end - begin !== bits / 8) {
    throw bad(
      path,
      `${where} is ${dtype} ${describe(shape)} and needs ${bits / 8} bytes, but its data_offsets ${describe(offsets)} span ${end - begin}`,
    )
  }
  return { name, dtype, shape, elements, begin, end }
}

/** Sorted by their start, the tensors must follow each other from 0 to the end of the file without a byte between. */
function checkTiling(tensors: readonly TensorInfo[], dataBytes: number, path: string): void {
  const sorted = [...tensors].sort((a, b) => a.begin - b.begin || a.end - b.end)
  let at = 0
  let previous = 'the start of the data'
  for (const { name, begin, end } of sorted) {
    const label = JSON.stringify(name)
    if (begin < at)
      throw bad(path, `tensor ${label} starts at byte ${begin} and overlaps ${previous}, which ends at byte ${at}`)
    if (begin > at)
      throw bad(
        path,
        `bytes ${at} to ${begin} of its data, between ${previous} and tensor ${label}, belong to no tensor`,
      )
    at = end
    previous = `tensor ${label}`
  }
  if (at > dataBytes) throw truncated(path, `${at} bytes of data expected, the file has ${dataBytes}`)
  if (at < dataBytes)
    throw bad(
      path,
      `its last ${dataBytes - at} bytes belong to no tensor (${at} bytes of data expected, the file has ${dataBytes})`,
    )
}

function isSize(value: unknown): boolean {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
}

function bad(path: string, message: string, cause?: unknown): TunesmithError {
  return new TunesmithError('ERR_SAFETENSORS_HEADER', `${path} is malformed: ${message}. Fetch or export it again.`, {
    cause,
  })
}

function truncated(path: string, message: string): TunesmithError {
  return new TunesmithError('ERR_SAFETENSORS_TRUNCATED', `${path} is cut short: ${message}. Fetch or copy it again.`)
}
