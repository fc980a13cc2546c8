/** The weights of an adapter: from a folder into the engine, and from the engine into PEFT's file. */
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import type { NativeEngine, StorageType } from '../../native/addon.ts'
import { defaultChunkBytes, type StoredTensor, streamTensor, withFile } from '../safetensors.ts'
import { buildHeader, elementsOf, sizeOf, storageTypeOf } from '../safetensors-header.ts'
import { type Adapter, adapterTensors } from './adapter.ts'
import { adapterWeightsFile } from './peft-config.ts'

/**
 * Loads a stored adapter into an engine that has its modules, and commits.
 *
 * @throws read errors; the signal's reason
 */
export async function loadAdapter(
  adapter: Adapter,
  engine: Pick<NativeEngine, 'write' | 'commit'>,
  signal?: AbortSignal,
): Promise<void> {
  const { tensors } = adapter.stored!
  for (const { name, tensor, rows } of adapterTensors(adapter)) {
    signal?.throwIfAborted()
    const stored = tensors.get(tensor)!
    const type = storageTypeOf(stored.dtype)!
    const bytes = await readTensor(stored)
    await engine.write(name, 0, type, rows ? takeRows(bytes, rows) : bytes)
  }
  await engine.commit()
}

async function readTensor(tensor: StoredTensor): Promise<Uint8Array> {
  const bytes = new Uint8Array(tensor.end - tensor.begin)
  await withFile(tensor.file, (handle) =>
    streamTensor(handle, tensor, defaultChunkBytes, async (chunk, offset) => bytes.set(chunk, offset)),
  )
  return bytes
}

/** Row n of the result is row rows[n]. */
function takeRows(bytes: Uint8Array, rows: Int32Array): Uint8Array {
  const width = bytes.length / rows.length
  const result = new Uint8Array(bytes.length)
  for (const [n, row] of rows.entries()) result.set(bytes.subarray(row * width, (row + 1) * width), n * width)
  return result
}

/** Row rows[n] of the result is row n. */
export function putRows(bytes: Uint8Array, rows: Int32Array): Uint8Array {
  const width = bytes.length / rows.length
  const result = new Uint8Array(bytes.length)
  for (const [n, row] of rows.entries()) result.set(bytes.subarray(n * width, (n + 1) * width), row * width)
  return result
}

/** A tensor of the file about to be written, and its bytes when its turn comes. */
export interface AdapterSource {
  name: string
  shape: readonly number[]
  read: () => Promise<Uint8Array>
}

/** The tensors of an adapter as the engine holds them, in float32. */
export function adapterSources(adapter: Adapter, engine: Pick<NativeEngine, 'read'>): AdapterSource[] {
  return adapterTensors(adapter).map(({ name, tensor, shape, rows }) => ({
    name: tensor,
    shape,
    read: async () => {
      const bytes = await engine.read(name, 0, elementsOf(shape), adapterType)
      return rows ? putRows(bytes, rows) : bytes
    },
  }))
}

/** What PEFT keeps adapters in, whatever the base is in. */
const adapterType: StorageType = 'float32'

/** Writes adapter_model.safetensors and flushes it. @returns its bytes of tensors */
export async function writeAdapterFile(folder: string, sources: readonly AdapterSource[]): Promise<void> {
  const handle = await open(join(folder, adapterWeightsFile), 'wx')
  try {
    await writeAll(buildHeader(sources.map(({ name, shape }) => ({ name, shape, type: adapterType }))))
    for (const { shape, read } of sources) {
      const bytes = await read()
      if (bytes.length !== elementsOf(shape) * sizeOf(adapterType)) throw new RangeError('an adapter of another size')
      await writeAll(bytes)
    }
    await handle.sync()
  } finally {
    await handle.close()
  }

  async function writeAll(bytes: Uint8Array): Promise<void> {
    let done = 0
    while (done < bytes.length) done += (await handle.write(bytes, done, bytes.length - done)).bytesWritten
  }
}
