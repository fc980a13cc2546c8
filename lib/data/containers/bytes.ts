/** The bytes of a text file, decompressed where its name ends in .gz or .zst. What the name says is checked. */
import { createReadStream } from 'node:fs'
import { open } from 'node:fs/promises'
import { pipeline } from 'node:stream/promises'
import { createGunzip } from 'node:zlib'
import { Decompress } from 'fzstd'
import { TunesmithError } from '../../errors.ts'

const CHUNK_BYTES = 1 << 20
/** A zstd block of 4 bytes can stand for 128 KiB, so that little is decompressed at once. */
const ZSTD_SLICE_BYTES = 8 << 10

export type Compression = 'none' | 'gzip' | 'zstd'

const MAGIC: readonly { what: string; extension: string; bytes: readonly number[] }[] = [
  { what: 'gzip', extension: '.gz', bytes: [0x1f, 0x8b] },
  { what: 'zstd', extension: '.zst', bytes: [0x28, 0xb5, 0x2f, 0xfd] },
  { what: 'Parquet', extension: '.parquet', bytes: [0x50, 0x41, 0x52, 0x31] },
  { what: 'zip', extension: '.zip', bytes: [0x50, 0x4b, 0x03, 0x04] },
]

export function compressionOf(path: string): Compression {
  if (/\.gz$/i.test(path)) return 'gzip'
  return /\.zst$/i.test(path) ? 'zstd' : 'none'
}

/**
 * The decompressed text of `path` in chunks, a UTF-8 byte order mark taken off.
 *
 * @throws TunesmithError `ERR_DATA_READ` where the file cannot be read, is cut short or corrupt; `ERR_DATA_FORMAT` where
 * it is UTF-16, or not compressed as its name says.
 */
export async function* readText(path: string): AsyncGenerator<Buffer> {
  let first = true
  for await (const chunk of readBytes(path)) {
    if (chunk.length === 0) continue
    yield first ? withoutByteOrderMark(chunk, path) : chunk
    first = false
  }
}

async function* readBytes(path: string): AsyncGenerator<Buffer> {
  const compression = compressionOf(path)
  try {
    await checkMagic(path, compression)
    if (compression === 'gzip') yield* gunzip(path)
    else if (compression === 'zstd') yield* unzstd(path)
    else yield* createReadStream(path, { highWaterMark: CHUNK_BYTES })
  } catch (error) {
    if (error instanceof TunesmithError) throw error
    const { message, code } = error as NodeJS.ErrnoException
    const cut = code === 'Z_BUF_ERROR' || /unexpected (EOF|end of file)/i.test(message)
    const how =
      compression === 'none' ? '' : cut ? `its ${compression} data is cut short` : `its ${compression} data is corrupt`
    throw new TunesmithError('ERR_DATA_READ', `Cannot read ${path}: ${how ? `${how} (${message})` : message}`, {
      cause: error,
    })
  }
}

/** The first bytes of a file tell its kind; a name that says another is a mistake worth a clear word. */
async function checkMagic(path: string, compression: Compression): Promise<void> {
  const handle = await open(path)
  const start = new Uint8Array(4)
  let length: number
  try {
    length = (await handle.read(start, 0, start.length, 0)).bytesRead
  } finally {
    await handle.close()
  }
  // Of the first bytes alone the decompressor says that they are cut short; it takes none at all for an empty file.
  if (compression !== 'none' && length === 0) throw new Error('unexpected end of file')
  if (compression !== 'none' && length < start.length) return
  const found = MAGIC.find(({ bytes }) => bytes.every((byte, index) => start[index] === byte))
  if (compression === 'none') {
    if (!found) return
    throw wrongKind(path, `its content is ${found.what}. Name it so that it ends in ${found.extension}`)
  }
  if (found?.what !== compression && start.some((byte) => byte !== 0) && !isSkippableFrame(start, compression)) {
    throw wrongKind(
      path,
      `its content is ${found ? found.what : `not ${compression}`}, whatever its name says. Rename it`,
    )
  }
}

/** A zstd file may start with frames of metadata. */
function isSkippableFrame(start: Uint8Array, compression: Compression): boolean {
  return compression === 'zstd' && start[0]! >> 4 === 5 && start[1] === 0x2a && start[2] === 0x4d && start[3] === 0x18
}

function wrongKind(path: string, why: string): TunesmithError {
  return new TunesmithError('ERR_DATA_FORMAT', `Cannot read ${path}: ${why}`)
}

async function* gunzip(path: string): AsyncGenerator<Buffer> {
  const source = createReadStream(path, { highWaterMark: CHUNK_BYTES })
  const engine = createGunzip({ chunkSize: CHUNK_BYTES })
  // Its failure destroys the engine and so reaches the loop below.
  pipeline(source, engine).catch(() => {})
  try {
    yield* engine as AsyncIterable<Buffer>
  } finally {
    source.destroy()
  }
}

async function* unzstd(path: string): AsyncGenerator<Buffer> {
  let out: Buffer[] = []
  const engine = new Decompress((block) => {
    // The engine goes on to use the block's memory as its window.
    if (block.length > 0) out.push(Buffer.from(block))
  })
  for await (const chunk of createReadStream(path, { highWaterMark: CHUNK_BYTES }) as AsyncIterable<Buffer>) {
    for (let start = 0; start < chunk.length; start += ZSTD_SLICE_BYTES) {
      engine.push(chunk.subarray(start, start + ZSTD_SLICE_BYTES))
      yield* out
      out = []
    }
  }
  engine.push(new Uint8Array(0), true)
  yield* out
}

function withoutByteOrderMark(chunk: Buffer, path: string): Buffer {
  if (chunk[0] === 0xef && chunk[1] === 0xbb && chunk[2] === 0xbf) return chunk.subarray(3)
  if ((chunk[0] === 0xff && chunk[1] === 0xfe) || (chunk[0] === 0xfe && chunk[1] === 0xff)) {
    throw new TunesmithError('ERR_DATA_FORMAT', `${path} is UTF-16; save it as UTF-8`)
  }
  return chunk
}
