/** Single rows of the embedding matrix, read from the file without the rest. */
import type { Checkpoint } from './open.ts'
import { withFile } from './safetensors.ts'
import { sizeOf, storageTypeOf } from './safetensors-header.ts'

/**
 * The embedding of each id as float32, [ids.length][hiddenSize], in their order.
 *
 * @param ids below the vocabulary size of the model
 * @throws ERR_SAFETENSORS_READ
 */
export async function embeddingRows(checkpoint: Checkpoint, ids: readonly number[]): Promise<Float32Array[]> {
  const tensor = checkpoint.tensors.tensors.get(checkpoint.family.embeddingTensor)!
  const type = storageTypeOf(tensor.dtype)!
  const width = tensor.shape[1]!
  const bytes = width * sizeOf(type)
  return withFile(tensor.file, async (handle) => {
    const rows: Float32Array[] = []
    for (const id of ids) {
      const buffer = new Uint8Array(bytes)
      let done = 0
      while (done < bytes) {
        const { bytesRead } = await handle.read(buffer, done, bytes - done, tensor.position + id * bytes + done)
        if (bytesRead === 0) throw new RangeError(`the embedding has no row ${id}`)
        done += bytesRead
      }
      rows.push(asFloats(buffer, type, width))
    }
    return rows
  })
}

function asFloats(bytes: Uint8Array, type: ReturnType<typeof storageTypeOf>, width: number): Float32Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  switch (type) {
    case 'float64':
      return Float32Array.from({ length: width }, (_, index) => view.getFloat64(8 * index, true))
    case 'float32':
      return Float32Array.from({ length: width }, (_, index) => view.getFloat32(4 * index, true))
    case 'float16':
      return Float32Array.from({ length: width }, (_, index) => halfToFloat(view.getUint16(2 * index, true)))
    default: {
      const bits = new Uint32Array(width)
      for (let index = 0; index < width; index++) bits[index] = view.getUint16(2 * index, true) << 16
      return new Float32Array(bits.buffer)
    }
  }
}

/** IEEE 754 binary16. */
function halfToFloat(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >> 10) & 0x1f
  const fraction = bits & 0x3ff
  if (exponent === 0) return sign * fraction * 2 ** -24
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15)
}
