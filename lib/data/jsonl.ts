/** Reads the lines of a JSONL file of any size, in batches, without ever holding more than a chunk and a line. */
import { isUtf8 } from 'node:buffer'
import { createReadStream } from 'node:fs'
import { TunesmithError } from '../errors.ts'

export interface Line {
  /** 1-based; blank lines count but are not given. */
  line: number
  /** Undefined where the line could not be read; `problem` says why. */
  text?: string
  problem?: string
}

const CHUNK_BYTES = 1 << 20
/** V8's strings end at 512 MiB; no sensible row comes near this. */
const LONGEST_LINE_BYTES = 256 << 20
const NEWLINE = 0x0a

/**
 * The lines of `path`, one batch per chunk read. UTF-8, a byte order mark at the start tolerated; `\n` and `\r\n`; blank
 * lines ignored.
 *
 * @throws TunesmithError `ERR_DATA_READ` where the file cannot be read, `ERR_DATA_FORMAT` where it is UTF-16.
 */
export async function* readLines(path: string, longestBytes: number = LONGEST_LINE_BYTES): AsyncGenerator<Line[]> {
  const stream = createReadStream(path, { highWaterMark: CHUNK_BYTES })
  let pending: Buffer[] = []
  let pendingBytes = 0
  let line = 0
  let first = true
  const take = (end: Buffer): Line | undefined => {
    line++
    const bytes = pending.length === 0 ? end : Buffer.concat([...pending, end])
    const long = pendingBytes + end.length > longestBytes
    pending = []
    pendingBytes = 0
    if (long) {
      const limit = `${longestBytes / 2 ** 20} MiB`
      return { line, problem: `is longer than ${limit}; JSONL holds one row per line` }
    }
    return decode(bytes, line)
  }
  try {
    for await (const read of stream as AsyncIterable<Buffer>) {
      let chunk = read
      if (first) {
        chunk = withoutByteOrderMark(chunk, path)
        first = false
      }
      const lines: Line[] = []
      let start = 0
      for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, start)) {
        const taken = take(chunk.subarray(start, end))
        if (taken) lines.push(taken)
        start = end + 1
      }
      const rest = chunk.subarray(start)
      // Of a line that is too long only its length is kept.
      pendingBytes += rest.length
      if (rest.length > 0 && pendingBytes <= longestBytes) pending.push(rest)
      else if (pendingBytes > longestBytes) pending = []
      if (lines.length > 0) yield lines
    }
  } catch (error) {
    if (error instanceof TunesmithError) throw error
    throw new TunesmithError('ERR_DATA_READ', `Cannot read ${path}: ${(error as Error).message}`, { cause: error })
  }
  if (pendingBytes > 0) {
    const last = take(Buffer.alloc(0))
    if (last) yield [last]
  }
}

function decode(bytes: Buffer, line: number): Line | undefined {
  if (!isUtf8(bytes)) return { line, problem: 'is not valid UTF-8; save the file as UTF-8' }
  const text = bytes.toString('utf8')
  return text.trim() === '' ? undefined : { line, text }
}

function withoutByteOrderMark(chunk: Buffer, path: string): Buffer {
  if (chunk[0] === 0xef && chunk[1] === 0xbb && chunk[2] === 0xbf) return chunk.subarray(3)
  if ((chunk[0] === 0xff && chunk[1] === 0xfe) || (chunk[0] === 0xfe && chunk[1] === 0xff)) {
    throw new TunesmithError('ERR_DATA_FORMAT', `${path} is UTF-16; save it as UTF-8`)
  }
  return chunk
}
