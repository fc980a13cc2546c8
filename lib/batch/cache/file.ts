/**
 * One cache file: the blocks of both sides, a footer that lists them and holds what was counted (JSON), and a trailer of
 * 16 bytes (the footer's length and checksum, then the magic). The footer comes last, so that a file cut short is
 * recognised before anything of it is used; every block and the footer have a CRC-32.
 */
import { type FileHandle, open } from 'node:fs/promises'
import { endianness } from 'node:os'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { crc32 } from 'node:zlib'
import type { Conversations, PassResult } from '../pass.ts'
import { decodeBlock, encodeBlocks, FileNames } from './blocks.ts'

/** Blocks are words as the machine has them; another byte order reads as a file without the magic. */
const MAGIC = endianness() === 'LE' ? 'tsprepL1' : 'tsprepB1'
const TRAILER_BYTES = 16

interface Footer {
  /** Names that blocks refer to by index. */
  files: string[]
  blocks: { side: 'train' | 'eval'; bytes: number; crc: number }[]
  /** Sides that were read, conversations left or not. */
  sides: ('train' | 'eval')[]
  found: Omit<PassResult, 'train' | 'eval'>
}

/** Writes `result` to `handle`, an empty file. */
export async function writePass(handle: FileHandle, { train, eval: evaluation, ...found }: PassResult): Promise<void> {
  const files = new FileNames()
  const footer: Footer = { files: files.names, blocks: [], sides: evaluation ? ['train', 'eval'] : ['train'], found }
  for (const side of footer.sides) {
    for (const block of encodeBlocks(side === 'train' ? train : evaluation!, files)) {
      footer.blocks.push({ side, bytes: block.byteLength, crc: crc32(block) })
      await writeAll(handle, block)
    }
  }
  const json = Buffer.from(JSON.stringify(footer))
  const trailer = Buffer.alloc(TRAILER_BYTES)
  trailer.writeUInt32LE(json.length, 0)
  trailer.writeUInt32LE(crc32(json), 4)
  trailer.write(MAGIC, 8, 'latin1')
  await writeAll(handle, Buffer.concat([json, trailer]))
}

/** Why a cache file cannot be used although it can be read. */
export class DamagedCache extends Error {}

/**
 * Reads what writePass wrote. The event loop gets a turn after every block.
 *
 * @throws DamagedCache where the file is not whole; the signal's reason; the system's errors
 */
export async function readPass(path: string, signal?: AbortSignal): Promise<PassResult> {
  const handle = await open(path, 'r')
  try {
    const { size } = await handle.stat()
    const { files, blocks, sides, found } = await readFooter(handle, size)
    const read: Record<'train' | 'eval', Conversations> = {
      train: { pieces: [], keys: [] },
      eval: { pieces: [], keys: [] },
    }
    let position = 0
    for (const { side, bytes, crc } of blocks) {
      const block = await readAt(handle, position, bytes)
      if (crc32(block) !== crc) throw new DamagedCache(`the checksum at byte ${position} is wrong`)
      try {
        decodeBlock(block, files, read[side])
      } catch (error) {
        throw new DamagedCache((error as Error).message)
      }
      position += bytes
      await nextTurn()
      signal?.throwIfAborted()
    }
    return { train: read.train, ...(sides.includes('eval') && { eval: read.eval }), ...found }
  } finally {
    await handle.close()
  }
}

async function readFooter(handle: FileHandle, size: number): Promise<Footer> {
  if (size < TRAILER_BYTES) throw new DamagedCache(`it has only ${size} bytes`)
  const trailer = Buffer.from(await readAt(handle, size - TRAILER_BYTES, TRAILER_BYTES))
  if (trailer.toString('latin1', 8) !== MAGIC) throw new DamagedCache('its end is missing')
  const length = trailer.readUInt32LE(0)
  const start = size - TRAILER_BYTES - length
  if (start < 0) throw new DamagedCache('its footer has the wrong size')
  const json = await readAt(handle, start, length)
  if (crc32(json) !== trailer.readUInt32LE(4)) throw new DamagedCache('the checksum of its footer is wrong')
  const footer = JSON.parse(Buffer.from(json).toString()) as Footer
  if (footer.blocks.reduce((sum, { bytes }) => sum + bytes, 0) !== start)
    throw new DamagedCache('its blocks do not fill it')
  return footer
}

/** Exactly `length` bytes in a buffer of their own. */
async function readAt(handle: FileHandle, position: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length)
  for (let done = 0; done < length; ) {
    const { bytesRead } = await handle.read(bytes, done, length - done, position + done)
    if (bytesRead === 0) throw new DamagedCache('it ends early')
    done += bytesRead
  }
  return bytes
}

async function writeAll(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.byteLength; ) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.byteLength - done)
    done += bytesWritten
  }
}
