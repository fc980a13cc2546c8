/**
 * Parameters inside the tensors of a checkpoint: those that are a tensor as it is, those that share one (fused
 * projections, laid one after the other or alternating by head), and those that are stored transposed (GPT-2's Conv1D).
 * Tensors are read and written in chunks from first to last, and no tensor is ever in memory whole unless it fits a
 * chunk. Transposing needs all of a tensor for each part of the result: it goes over it up to four times and holds a
 * quarter.
 */
import type { FileHandle } from 'node:fs/promises'
import type { NativeEngine, StorageType } from '../native/addon.ts'
import type { ParameterSource, TensorPart } from './families/family.ts'
import { type StoredTensor, streamTensor } from './safetensors.ts'
import { elementsOf, sizeOf, storageTypeOf } from './safetensors-header.ts'

/** A tensor of a checkpoint and the parameters it holds. */
export interface TensorGroup {
  tensor: string
  /** As it is stored. */
  shape: number[]
  sources: ParameterSource[]
}

type Write = NativeEngine['write']
type Read = NativeEngine['read']

const maxPasses = 4
/** Rows that are transposed together: 16 numbers are a cache line or two. */
const tile = 16

/** The tensors that the parameters lie in, in the order of their first parameter. */
export function groupByTensor(sources: readonly ParameterSource[]): TensorGroup[] {
  const groups = new Map<string, TensorGroup>()
  for (const source of sources) {
    const { tensor, shape, part } = source
    const group = groups.get(tensor)
    if (group) group.sources.push(source)
    else groups.set(tensor, { tensor, shape: part?.tensorShape ?? shape, sources: [source] })
  }
  return [...groups.values()]
}

/**
 * Reads one tensor and writes its parameters.
 *
 * @param handle the tensor's file
 * @param chunkBytes of one read and of what is written at once
 * @param progress called with the bytes of each chunk once they are written
 */
export async function loadTensor(
  handle: FileHandle,
  stored: StoredTensor,
  group: TensorGroup,
  write: Write,
  chunkBytes: number,
  progress: (bytes: number) => void,
): Promise<void> {
  const type = storageTypeOf(stored.dtype)!
  const size = sizeOf(type)
  const [first] = group.sources
  if (first!.part === undefined) {
    await streamTensor(handle, stored, chunkBytes, async (bytes, offset) => {
      await write(first!.name, offset / size, type, bytes)
      progress(bytes.length)
    })
    return
  }
  const { transposed } = first!.part
  const columns = transposed ? group.shape[0]! : elementsOf(group.shape.slice(1))
  const scatter = async (bytes: Uint8Array, begin: number): Promise<void> => {
    const end = begin + bytes.length / (columns * size)
    for (const { name, shape, part } of group.sources) {
      const from = rowsBefore(part!, begin)
      const to = Math.min(rowsBefore(part!, end), shape[0]!)
      if (from >= to) continue
      const rows = gatherRows(part!, from, to, (row, count) =>
        bytes.subarray((row - begin) * columns * size, (row - begin + count) * columns * size),
      )
      await write(name, from * columns, type, rows)
    }
    progress(bytes.length)
  }
  if (transposed) return loadTransposed(handle, stored, group.shape, size, chunkBytes, scatter)
  const rowBytes = columns * size
  const step = rowBytes * Math.max(1, Math.floor(chunkBytes / rowBytes))
  await streamTensor(handle, stored, step, (bytes, offset) => scatter(bytes, offset / rowBytes))
}

/** Delivers bands of columns of a [K, N] tensor as rows of [N, K]. */
async function loadTransposed(
  handle: FileHandle,
  stored: StoredTensor,
  shape: readonly number[],
  size: number,
  chunkBytes: number,
  consume: (rows: Uint8Array, begin: number) => Promise<void>,
): Promise<void> {
  const [height, width] = [shape[0]!, shape[1]!]
  const rowBytes = width * size
  const step = rowBytes * Math.max(1, Math.floor(chunkBytes / rowBytes))
  const band = bandOf(width, height * rowBytes, chunkBytes)
  for (let begin = 0; begin < width; begin += band) {
    const count = Math.min(band, width - begin)
    const result = new Uint8Array(count * height * size)
    await streamTensor(handle, stored, step, async (bytes, offset) => {
      const from = offset / rowBytes
      const source = numbers(bytes, size)
      const target = numbers(result, size)
      transpose(source, target, { rows: bytes.length / rowBytes, columns: count, width, skip: begin, height, from })
    })
    await consume(result, begin)
  }
}

/**
 * What the writer asks for: elements of the stored tensor, put together from its parameters.
 *
 * @returns `read` for the writer, and the elements it must ask for at a time, if not any number will do
 */
export function tensorReader(
  group: TensorGroup,
  type: StorageType,
  engineRead: Read,
  chunkBytes: number,
): { read: (offset: number, count: number) => Promise<Uint8Array>; step?: number } {
  const [first] = group.sources
  if (first!.part === undefined) return { read: (offset, count) => engineRead(first!.name, offset, count, type) }
  if (first!.part.transposed) return transposedReader(group, type, engineRead, chunkBytes)
  const size = sizeOf(type)
  const columns = elementsOf(group.shape.slice(1))
  const read = async (offset: number, count: number): Promise<Uint8Array> => {
    const result = new Uint8Array(count * size)
    for (let done = 0; done < count; ) {
      const row = Math.floor((offset + done) / columns)
      const column = (offset + done) % columns
      const { name, native, together } = parameterAt(group, row)
      const elements = Math.min(count - done, together * columns - column)
      result.set(await engineRead(name, native * columns + column, elements, type), done * size)
      done += elements
    }
    return result
  }
  return { read }
}

function transposedReader(group: TensorGroup, type: StorageType, engineRead: Read, chunkBytes: number) {
  const size = sizeOf(type)
  const [height, width] = [group.shape[0]!, group.shape[1]!]
  const band = bandOf(height, height * width * size, chunkBytes)
  const atOnce = Math.max(1, Math.floor(chunkBytes / (height * size)))
  const read = async (offset: number, count: number): Promise<Uint8Array> => {
    const [begin, rows] = [offset / width, count / width]
    const result = new Uint8Array(count * size)
    const target = numbers(result, size)
    for (let column = 0; column < width; ) {
      const { name, native, together } = parameterAt(group, column)
      const taken = Math.min(together, atOnce)
      const bytes = await engineRead(name, native * height, taken * height, type)
      const shape = { rows: taken, columns: rows, width: height, skip: begin, height: width, from: column }
      transpose(numbers(bytes, size), target, shape)
      column += taken
    }
    return result
  }
  return { read, step: band * width }
}

/** Rows of a parameter that lie before a row of the tensor. */
function rowsBefore({ first, block, stride }: TensorPart, row: number): number {
  const inside = Math.max(0, row - first)
  return Math.floor(inside / stride) * block + Math.min(inside % stride, block)
}

function gatherRows(
  { first, block, stride }: TensorPart,
  from: number,
  to: number,
  rows: (row: number, count: number) => Uint8Array,
): Uint8Array {
  const pieces: Uint8Array[] = []
  for (let row = from; row < to; ) {
    const count = Math.min(block - (row % block), to - row)
    pieces.push(rows(first + Math.floor(row / block) * stride + (row % block), count))
    row += count
  }
  return pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces)
}

/** The parameter that holds a row of the tensor, which of its rows that is, and how many follow each other from there. */
function parameterAt(
  { sources, tensor }: TensorGroup,
  row: number,
): { name: string; native: number; together: number } {
  for (const { name, shape, part } of sources) {
    const { first, block, stride } = part!
    const inside = (row - first) % stride
    if (row < first || inside >= block) continue
    const native = Math.floor((row - first) / stride) * block + inside
    if (native < shape[0]!) return { name, native, together: block - inside }
  }
  throw new RangeError(`row ${row} of ${tensor} belongs to no parameter`)
}

/** Lines of a transposed tensor that are made in one pass. */
function bandOf(lines: number, bytes: number, chunkBytes: number): number {
  const passes = Math.min(maxPasses, Math.ceil(bytes / chunkBytes))
  return Math.ceil(lines / passes)
}

interface Transposition {
  /** Of the source, and how many of its columns from `skip` on are taken. */
  rows: number
  columns: number
  width: number
  skip: number
  /** Length of a row of the target, and where in it the source's first row goes. */
  height: number
  from: number
}

type Numbers = Uint16Array | Uint32Array | BigUint64Array

function transpose(source: Numbers, target: Numbers, shape: Transposition): void {
  const { rows, columns, width, skip, height, from } = shape
  for (let begin = 0; begin < rows; begin += tile) {
    const end = Math.min(begin + tile, rows)
    for (let column = 0; column < columns; column++) {
      const to = column * height + from
      for (let row = begin; row < end; row++) target[to + row] = source[row * width + skip + column]!
    }
  }
}

/** Numbers as bits: nothing but their place changes. */
function numbers(bytes: Uint8Array, size: number): Numbers {
  const { buffer, byteOffset } = bytes.byteOffset % size === 0 ? bytes : bytes.slice()
  const length = bytes.length / size
  if (size === 2) return new Uint16Array(buffer, byteOffset, length)
  if (size === 4) return new Uint32Array(buffer, byteOffset, length)
  return new BigUint64Array(buffer, byteOffset, length)
}
