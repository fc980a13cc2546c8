/**
 * Reading the header of a GGUF file, to check what was written. Bounded: every count and length is held against the
 * file's size before anything is made of it.
 */
import { open } from 'node:fs/promises'
import { TunesmithError } from '../../errors.ts'
import { encodedBytes, type GgufType, typeInfo } from './encode.ts'
import { type ArrayType, type Metadata, type MetadataValue, valueTypes } from './values.ts'
import { magic, padded, version } from './write.ts'

export interface GgufHeader {
  metadata: Metadata
  tensors: Map<string, { type: GgufType; shape: number[]; position: number; bytes: number }>
}

const typeNames = Object.fromEntries(Object.entries(valueTypes).map(([name, id]) => [id, name]))
const tensorTypes = Object.fromEntries(Object.entries(typeInfo).map(([name, { id }]) => [id, name as GgufType]))

/**
 * @throws ERR_INVALID_GGUF where the file is cut short, malformed, or uses what this package does not write
 */
export async function readGgufHeader(path: string): Promise<GgufHeader> {
  const handle = await open(path, 'r')
  try {
    const { size } = await handle.stat()
    // Headers are a few MB (the vocabulary); they are read whole, growing until they fit.
    for (let length = Math.min(size, 1 << 22); ; length = Math.min(size, 4 * length)) {
      const bytes = Buffer.alloc(length)
      for (let done = 0; done < length; ) {
        const { bytesRead } = await handle.read(bytes, done, length - done, done)
        if (bytesRead === 0) throw invalid(path, 'it is cut short')
        done += bytesRead
      }
      try {
        return parseGgufHeader(bytes, size, path)
      } catch (error) {
        if (!(error instanceof RangeError) || length === size) throw cutShort(error, path)
      }
    }
  } finally {
    await handle.close()
  }
}

function cutShort(error: unknown, path: string): unknown {
  return error instanceof RangeError ? invalid(path, 'it is cut short') : error
}

/** @throws RangeError where `bytes` end too early */
function parseGgufHeader(bytes: Buffer, fileSize: number, path: string): GgufHeader {
  let at = 0
  const take = (count: number): number => {
    if (count > bytes.length - at) throw new RangeError('beyond the end')
    at += count
    return at - count
  }
  const uint32 = () => bytes.readUInt32LE(take(4))
  const count = () => {
    const value = bytes.readBigUInt64LE(take(8))
    // Whatever is counted takes at least a byte of the file.
    if (value > BigInt(fileSize)) throw invalid(path, `it claims ${value} of something`)
    return Number(value)
  }
  const string = () => {
    const length = count()
    const start = take(length)
    return bytes.toString('utf8', start, start + length)
  }
  const scalar = (type: string): number | string | boolean => {
    if (type === 'uint32') return uint32()
    if (type === 'int32') return bytes.readInt32LE(take(4))
    if (type === 'float32') return bytes.readFloatLE(take(4))
    if (type === 'bool') return bytes[take(1)] !== 0
    if (type === 'string') return string()
    throw invalid(path, `it holds a value of type ${type}`)
  }
  const typeName = () => {
    const id = uint32()
    const name = typeNames[id]
    if (name === undefined) throw invalid(path, `it holds a value of type ${id}`)
    return name
  }
  const value = (): MetadataValue => {
    const type = typeName()
    if (type !== 'array') return { type, value: scalar(type) } as MetadataValue
    const of = typeName() as ArrayType
    const length = count()
    const list: (number | string)[] = []
    for (let i = 0; i < length; i++) list.push(scalar(of) as number | string)
    return { type: 'array', of, value: list }
  }

  if (uint32() !== magic) throw invalid(path, 'it is no GGUF file')
  const found = uint32()
  if (found !== version) throw invalid(path, `it is of version ${found}, not ${version}`)
  const tensorCount = count()
  const metadataCount = count()
  const metadata = new Map<string, MetadataValue>()
  for (let i = 0; i < metadataCount; i++) metadata.set(string(), value())
  const tensors: GgufHeader['tensors'] = new Map()
  for (let i = 0; i < tensorCount; i++) {
    const name = string()
    const axes = uint32()
    if (axes < 1 || axes > 4) throw invalid(path, `tensor ${name} has ${axes} axes`)
    const shape = Array.from({ length: axes }, count).reverse()
    const type = tensorTypes[uint32()]
    if (type === undefined) throw invalid(path, `tensor ${name} has an unknown type`)
    const position = count()
    const elements = shape.reduce((product, size) => product * size, 1)
    tensors.set(name, { type, shape, position, bytes: encodedBytes(type, elements) })
  }
  const dataStart = padded(at)
  for (const [name, tensor] of tensors) {
    tensor.position += dataStart
    if (tensor.position + tensor.bytes > fileSize) throw invalid(path, `tensor ${name} ends beyond the file`)
  }
  return { metadata, tensors }
}

function invalid(path: string, reason: string): TunesmithError {
  return new TunesmithError('ERR_INVALID_GGUF', `${path} cannot be used: ${reason}`)
}
