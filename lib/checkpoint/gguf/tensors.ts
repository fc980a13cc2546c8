/** Parameters of a checkpoint as float32 numbers, joined as llama.cpp keeps them. */
import type { StorageType } from '../../native/addon.ts'
import type { Checkpoint } from '../open.ts'
import { defaultChunkBytes, withFile } from '../safetensors.ts'
import { elementsOf } from '../safetensors-header.ts'
import { groupByTensor, loadTensor } from '../tensor-parts.ts'
import { fromHalf } from './encode.ts'

/**
 * The elements of native parameters, one parameter after the other.
 *
 * @returns float32 whatever the checkpoint's type; float64 is rounded
 */
export async function readParameters(
  { family, spec, tensors }: Checkpoint,
  names: readonly string[],
  signal?: AbortSignal,
): Promise<Float32Array> {
  const sources = family.parameters(spec)
  const wanted = names.map((name) => sources.find((source) => source.name === name)!)
  const starts = new Map<string, number>()
  let total = 0
  for (const { name, shape } of wanted) {
    starts.set(name, total)
    total += elementsOf(shape)
  }
  const values = new Float32Array(total)
  const write = async (name: string, offset: number, type: StorageType, bytes: Uint8Array): Promise<void> => {
    signal?.throwIfAborted()
    const start = starts.get(name)
    if (start !== undefined) toFloat32(type, bytes, values, start + offset)
  }
  // A tensor that holds several parameters is taken apart whole; the others of them are left aside.
  const groups = groupByTensor(sources).filter((group) => group.sources.some(({ name }) => starts.has(name)))
  for (const group of groups) {
    const stored = tensors.tensors.get(group.tensor)!
    await withFile(stored.file, (handle) => loadTensor(handle, stored, group, write, defaultChunkBytes, () => {}))
  }
  return values
}

function toFloat32(type: StorageType, bytes: Uint8Array, target: Float32Array, start: number): void {
  const size = { float64: 8, float32: 4, bfloat16: 2, float16: 2 }[type]
  // Typed arrays must begin at a multiple of their elements.
  const aligned = bytes.byteOffset % size === 0 ? bytes : bytes.slice()
  const { buffer, byteOffset } = aligned
  const count = bytes.length / size
  if (type === 'float64') target.set(new Float64Array(buffer, byteOffset, count), start)
  else if (type === 'float32') target.set(new Float32Array(buffer, byteOffset, count), start)
  else if (type === 'bfloat16') {
    const from = new Uint16Array(buffer, byteOffset, count)
    const bits = new Uint32Array(target.buffer, target.byteOffset + 4 * start, count)
    for (let i = 0; i < count; i++) bits[i] = from[i]! << 16
  } else {
    const from = new Uint16Array(buffer, byteOffset, count)
    for (let i = 0; i < count; i++) target[start + i] = fromHalf(from[i]!)
  }
}

/**
 * Rows of each head so that those of its first and second half alternate: row 2j is j, row 2j + 1 is headDim / 2 + j.
 *
 * @param values [rows, K], or [rows] of a bias
 */
export function interleaveHeads(values: Float32Array, rows: number, heads: number): Float32Array {
  const columns = values.length / rows
  const headDim = rows / heads
  const half = headDim / 2
  const result = new Float32Array(values.length)
  for (let head = 0; head < heads; head++) {
    for (let row = 0; row < headDim; row++) {
      const from = head * headDim + (row % 2) * half + (row >> 1)
      const to = head * headDim + row
      result.set(values.subarray(from * columns, (from + 1) * columns), to * columns)
    }
  }
  return result
}
