/** Writing a GGUF file: header, metadata, tensor list, then the tensors, each at a multiple of 32 bytes. */
import { open } from 'node:fs/promises'
import { encodedBytes, type GgufType, typeInfo } from './encode.ts'
import { ByteWriter, type Metadata } from './values.ts'

export const magic = 0x46554747 // "GGUF"
export const version = 3
export const alignment = 32

export interface GgufTensor {
  name: string
  type: GgufType
  /** [N, K] or [N], outermost first; the file has them the other way round. */
  shape: readonly number[]
  /** Its bytes from first to last, in pieces. */
  read: () => AsyncIterable<Uint8Array>
}

/**
 * Writes and flushes the file; `path` must not exist.
 *
 * @throws the errors of the file system and of the tensors; the caller removes the file then
 */
export async function writeGguf(
  path: string,
  metadata: Metadata,
  tensors: readonly GgufTensor[],
  onProgress?: (done: number, total: number) => void,
): Promise<void> {
  const head = header(metadata, tensors)
  const total = tensors.reduce((sum, { type, shape }) => sum + padded(sizeOf(type, shape)), head.length)
  const handle = await open(path, 'wx')
  try {
    let done = await writeAll(handle, head)
    onProgress?.(done, total)
    for (const { name, type, shape, read } of tensors) {
      const bytes = sizeOf(type, shape)
      let written = 0
      for await (const piece of read()) {
        written += await writeAll(handle, piece)
        onProgress?.(done + written, total)
      }
      if (written !== bytes) throw new Error(`tensor ${name} gave ${written} bytes instead of ${bytes}`)
      done += written + (await writeAll(handle, new Uint8Array(padded(bytes) - bytes)))
    }
    await handle.sync()
  } finally {
    await handle.close()
  }
}

function header(metadata: Metadata, tensors: readonly GgufTensor[]): Uint8Array {
  const out = new ByteWriter()
  out.uint32(magic)
  out.uint32(version)
  out.uint64(tensors.length)
  out.uint64(metadata.size)
  for (const [key, value] of metadata) {
    out.string(key)
    out.value(value)
  }
  let offset = 0
  for (const { name, type, shape } of tensors) {
    out.string(name)
    out.uint32(shape.length)
    for (const size of [...shape].reverse()) out.uint64(size)
    out.uint32(typeInfo[type].id)
    out.uint64(offset)
    offset += padded(sizeOf(type, shape))
  }
  out.zeros(padded(out.length) - out.length)
  return out.bytes()
}

function sizeOf(type: GgufType, shape: readonly number[]): number {
  return encodedBytes(
    type,
    shape.reduce((product, size) => product * size, 1),
  )
}

export function padded(bytes: number): number {
  return Math.ceil(bytes / alignment) * alignment
}

type Writable = Pick<Awaited<ReturnType<typeof open>>, 'write'>

async function writeAll(handle: Writable, bytes: Uint8Array): Promise<number> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.length - done)
    done += bytesWritten
  }
  return bytes.length
}
