/**
 * Reading tensors from safetensors files: one file, or the shards of a folder joined by model.safetensors.index.json.
 * Headers are read when a folder is opened; data is read in ranges, later, in the order it lies on disk.
 */
import { type FileHandle, open, readdir, readFile, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { TunesmithError } from '../errors.ts'
import { describe, isObject, RawObject } from './json.ts'
import { headerLength, parseHeader, type SafetensorsHeader, type TensorInfo } from './safetensors-header.ts'

export const singleFile = 'model.safetensors'
export const indexFile = 'model.safetensors.index.json'

/** Bytes of one ranged read, and of one write into the engine. */
export const defaultChunkBytes = 16 * 1024 * 1024

/** One tensor and where its bytes lie. */
export interface StoredTensor extends TensorInfo {
  /** Absolute path of its file. */
  file: string
  /** First byte in that file. */
  position: number
}

/** The tensors of a folder by name, from one file or many. */
export interface TensorStore {
  tensors: Map<string, StoredTensor>
  files: string[]
  /** Things that are odd but harm nothing, in words. */
  warnings: string[]
}

/**
 * Reads and checks the header of one file.
 *
 * @throws ERR_SAFETENSORS_HEADER, ERR_SAFETENSORS_TRUNCATED, ERR_SAFETENSORS_READ
 */
export async function readHeader(path: string): Promise<SafetensorsHeader> {
  return withFile(path, async (handle) => {
    const { size } = await handle.stat()
    const prefix = new Uint8Array(Math.min(8, size))
    await readExactly(handle, path, prefix, 0)
    const json = new Uint8Array(headerLength(prefix, size, path))
    await readExactly(handle, path, json, 8)
    return parseHeader(json, size, path)
  })
}

/**
 * Finds the tensors of a model folder: `model.safetensors`, else the shards that `model.safetensors.index.json` lists.
 *
 * @throws ERR_PICKLE_CHECKPOINT where there are only pickled weights, ERR_WEIGHTS_NOT_FOUND where there are none,
 *   ERR_SAFETENSORS_INDEX, ERR_SHARD_MISSING, and the errors of readHeader
 */
export async function openTensors(folder: string): Promise<TensorStore> {
  if (await isFile(join(folder, singleFile))) {
    const tensors = new Map<string, StoredTensor>()
    await addFile(tensors, join(folder, singleFile))
    return { tensors, files: [join(folder, singleFile)], warnings: [] }
  }
  if (await isFile(join(folder, indexFile))) return openShards(folder)
  const entries = await readdir(folder)
  const pickled = entries.find((name) => /\.(bin|pt|pth|ckpt)$/.test(name))
  if (pickled !== undefined) {
    throw new TunesmithError(
      'ERR_PICKLE_CHECKPOINT',
      `${folder} holds its weights only as ${pickled}. Pickled weights can run code when they are opened and are never ` +
        'unpickled here: convert them to safetensors first (in Transformers: from_pretrained, then save_pretrained).',
    )
  }
  const others = entries.filter((name) => name.endsWith('.safetensors'))
  const hint =
    others.length > 0 ? ` It holds ${others.slice(0, 3).join(', ')}; rename a single file to ${singleFile}.` : ''
  throw new TunesmithError('ERR_WEIGHTS_NOT_FOUND', `${folder} has neither ${singleFile} nor ${indexFile}.${hint}`)
}

/**
 * Reads a tensor's bytes from first to last. The next chunk is read while `consume` works on the last one, in two
 * buffers that are reused: what `consume` receives is valid until its promise settles.
 *
 * @param handle the tensor's file
 * @param chunkBytes size of one read, a multiple of 8
 * @param consume receives the bytes and their offset inside the tensor
 */
export async function streamTensor(
  handle: FileHandle,
  tensor: StoredTensor,
  chunkBytes: number,
  consume: (bytes: Uint8Array, offset: number) => Promise<void>,
): Promise<void> {
  const total = tensor.end - tensor.begin
  const size = Math.min(chunkBytes, total)
  const buffers = [new Uint8Array(size), new Uint8Array(total > size ? size : 0)]
  let pending = Promise.resolve()
  for (let offset = 0, turn = 0; offset < total; offset += size, turn = 1 - turn) {
    const chunk = buffers[turn]!.subarray(0, Math.min(size, total - offset))
    try {
      await readExactly(handle, tensor.file, chunk, tensor.position + offset)
    } finally {
      await pending
    }
    pending = consume(chunk, offset)
    // It is awaited one turn later; until then a rejection must not count as unhandled.
    pending.catch(() => {})
  }
  await pending
}

/** Reads a range of a tensor's bytes. */
export async function readRange(tensor: StoredTensor, offset: number, bytes: number): Promise<Uint8Array> {
  return withFile(tensor.file, async (handle) => {
    const result = new Uint8Array(bytes)
    await readExactly(handle, tensor.file, result, tensor.position + offset)
    return result
  })
}

/** Opens a file for reading, and closes it whatever `use` does. */
export async function withFile<T>(path: string, use: (handle: FileHandle) => Promise<T>): Promise<T> {
  let handle: FileHandle
  try {
    handle = await open(path, 'r')
  } catch (error) {
    throw new TunesmithError('ERR_SAFETENSORS_READ', `${path} cannot be read: ${(error as Error).message}`, {
      cause: error,
    })
  }
  try {
    return await use(handle)
  } finally {
    await handle.close()
  }
}

export async function isFile(path: string): Promise<boolean> {
  return stat(path).then(
    (entry) => entry.isFile(),
    () => false,
  )
}

async function readExactly(handle: FileHandle, path: string, target: Uint8Array, position: number): Promise<void> {
  let done = 0
  while (done < target.length) {
    const { bytesRead } = await handle.read(target, done, target.length - done, position + done)
    if (bytesRead === 0) {
      throw new TunesmithError(
        'ERR_SAFETENSORS_TRUNCATED',
        `${path} is cut short: ${target.length} bytes expected from byte ${position} on, the file has ${done}. Fetch or copy it again.`,
      )
    }
    done += bytesRead
  }
}

async function addFile(tensors: Map<string, StoredTensor>, file: string): Promise<void> {
  const header = await readHeader(file)
  for (const tensor of header.tensors) {
    const other = tensors.get(tensor.name)
    if (other !== undefined) {
      throw new TunesmithError(
        'ERR_SAFETENSORS_INDEX',
        `tensor ${JSON.stringify(tensor.name)} is in both ${basename(other.file)} and ${basename(file)}; remove one of them.`,
      )
    }
    tensors.set(tensor.name, { ...tensor, file, position: header.dataStart + tensor.begin })
  }
}

async function openShards(folder: string): Promise<TensorStore> {
  const path = join(folder, indexFile)
  const map = await readIndex(path)
  const names = [...new Set(map.weights.values())].sort()
  for (const name of names) {
    if (await isFile(join(folder, name))) continue
    throw new TunesmithError(
      'ERR_SHARD_MISSING',
      `${folder} lacks ${name}, one of the ${names.length} files that ${indexFile} lists. Fetch it and put it beside the others.`,
    )
  }
  const tensors = new Map<string, StoredTensor>()
  for (const name of names) await addFile(tensors, join(folder, name))
  for (const [tensor, name] of map.weights) {
    const found = tensors.get(tensor)
    if (found?.file === join(folder, name)) continue
    const instead = found ? `it is in ${basename(found.file)}` : 'no file has it'
    throw badIndex(path, `it lists tensor ${JSON.stringify(tensor)} in ${name}, but ${instead}`)
  }
  for (const [tensor, { file }] of tensors) {
    if (!map.weights.has(tensor))
      throw badIndex(path, `tensor ${JSON.stringify(tensor)} of ${basename(file)} is not listed`)
  }
  const bytes = [...tensors.values()].reduce((sum, tensor) => sum + tensor.end - tensor.begin, 0)
  const warnings = []
  if (map.totalSize !== undefined && map.totalSize !== bytes) {
    warnings.push(`${path} says total_size ${map.totalSize}, but its files hold ${bytes} bytes of tensors`)
  }
  return { tensors, files: names.map((name) => join(folder, name)), warnings }
}

async function readIndex(path: string): Promise<{ weights: Map<string, string>; totalSize: number | undefined }> {
  const { value } = RawObject.parse(await readFile(path, 'utf8'), path, 'ERR_SAFETENSORS_INDEX')
  const { metadata, weight_map: weightMap } = value
  if (!isObject(weightMap) || Object.keys(weightMap).length === 0) {
    throw badIndex(path, `weight_map must map tensor names to files, not ${describe(weightMap)}`)
  }
  const weights = new Map<string, string>()
  for (const [tensor, name] of Object.entries(weightMap)) {
    // Files are opened by this name, so it must stay inside the folder.
    if (typeof name !== 'string' || !/^[^/\\]+\.safetensors$/.test(name) || name.includes('\0')) {
      throw badIndex(
        path,
        `tensor ${JSON.stringify(tensor)} must name a .safetensors file of this folder, not ${describe(name)}`,
      )
    }
    weights.set(tensor, name)
  }
  const totalSize = isObject(metadata) && typeof metadata.total_size === 'number' ? metadata.total_size : undefined
  return { weights, totalSize }
}

function badIndex(path: string, message: string): TunesmithError {
  return new TunesmithError(
    'ERR_SAFETENSORS_INDEX',
    `${path} is malformed: ${message}. Fetch or export the folder again.`,
  )
}
