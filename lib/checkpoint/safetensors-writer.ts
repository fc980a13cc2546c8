/**
 * Writing tensors to safetensors files without holding any of them whole: the header is built from names, types and
 * shapes alone, and the data follows in chunks. Past `maxShardBytes` the tensors go to several files, named and indexed
 * as Transformers does.
 */
import { type FileHandle, open, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { TunesmithError } from '../errors.ts'
import type { StorageType } from '../native/addon.ts'
import { defaultChunkBytes, indexFile, singleFile } from './safetensors.ts'
import { buildHeader, elementsOf, sizeOf } from './safetensors-header.ts'

/** Transformers' limit of one shard, in bytes. */
export const defaultMaxShardBytes = 5_000_000_000

export interface TensorSource {
  name: string
  type: StorageType
  shape: readonly number[]
  /** Delivers `count` elements from element `offset` on, as bytes of `type`. */
  read: (offset: number, count: number) => Promise<Uint8Array>
  /** Elements it must be asked for at a time; without it as many as fit a chunk. */
  step?: number
}

export interface WriteOptions {
  /** Data bytes per file [5 GB]; a single tensor may be larger and gets a file of its own. */
  maxShardBytes?: number
  /** Bytes of one read and write [16 MiB]. */
  chunkBytes?: number
  signal?: AbortSignal | undefined
  /** Called after every chunk with the data bytes written so far and in all. */
  onProgress?: ((done: number, total: number) => void) | undefined
}

/**
 * Writes `model.safetensors`, or `model-00001-of-0000N.safetensors` … and the index, into `folder`. Every file is
 * flushed to disk. Nothing is cleaned up on failure: callers write into a staging folder.
 *
 * @returns names of the files written
 */
export async function writeTensors(
  folder: string,
  tensors: readonly TensorSource[],
  options: WriteOptions = {},
): Promise<string[]> {
  // Wider types first keeps every tensor aligned to its element size.
  const ordered = [...tensors].sort((a, b) => sizeOf(b.type) - sizeOf(a.type))
  const shards = splitShards(ordered, options.maxShardBytes ?? defaultMaxShardBytes)
  const total = ordered.reduce((sum, tensor) => sum + bytesOf(tensor), 0)
  let done = 0
  const progress = (bytes: number): void => {
    done += bytes
    options.onProgress?.(done, total)
  }
  const names = shards.map((_, index) => shardName(index, shards.length))
  for (const [index, shard] of shards.entries()) {
    await writeFileOf(join(folder, names[index]!), shard, options, progress)
  }
  if (shards.length === 1) return names
  const weightMap = Object.fromEntries(shards.flatMap((shard, index) => shard.map(({ name }) => [name, names[index]])))
  const index = { metadata: { total_size: total }, weight_map: weightMap }
  await writeFile(join(folder, indexFile), `${JSON.stringify(index, null, 2)}\n`, { flush: true })
  return [...names, indexFile]
}

/** Fills each shard up to the limit, in order. */
function splitShards(tensors: readonly TensorSource[], maxShardBytes: number): TensorSource[][] {
  const shards: TensorSource[][] = [[]]
  let room = maxShardBytes
  for (const tensor of tensors) {
    const bytes = bytesOf(tensor)
    if (bytes > room && shards.at(-1)!.length > 0) {
      shards.push([])
      room = maxShardBytes
    }
    shards.at(-1)!.push(tensor)
    room -= bytes
  }
  return shards
}

function shardName(index: number, count: number): string {
  if (count === 1) return singleFile
  const padded = (value: number): string => String(value).padStart(5, '0')
  return `model-${padded(index + 1)}-of-${padded(count)}.safetensors`
}

async function writeFileOf(
  path: string,
  tensors: readonly TensorSource[],
  { chunkBytes = defaultChunkBytes, signal }: WriteOptions,
  progress: (bytes: number) => void,
): Promise<void> {
  const handle = await open(path, 'wx')
  try {
    await writeAll(handle, buildHeader(tensors))
    for (const { name, type, shape, read, step: own } of tensors) {
      const elements = elementsOf(shape)
      const step = own ?? Math.max(1, Math.floor(chunkBytes / sizeOf(type)))
      for (let offset = 0; offset < elements; offset += step) {
        signal?.throwIfAborted()
        const count = Math.min(step, elements - offset)
        const bytes = await read(offset, count)
        if (bytes.length !== count * sizeOf(type)) {
          throw new TunesmithError(
            'ERR_INTERNAL',
            `${count} elements of ${name} as ${type} take ${count * sizeOf(type)} bytes, but ${bytes.length} were delivered`,
          )
        }
        await writeAll(handle, bytes)
        progress(bytes.length)
      }
    }
    await handle.sync()
  } finally {
    await handle.close()
  }
}

async function writeAll(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  let done = 0
  while (done < bytes.length) done += (await handle.write(bytes, done, bytes.length - done)).bytesWritten
}

function bytesOf(tensor: TensorSource): number {
  return elementsOf(tensor.shape) * sizeOf(tensor.type)
}
