/**
 * The rows of a JSON file of any size: `[row, ...]`, or `{"data": [row, ...]}` with other keys beside it. Only the frame is
 * followed here, byte by byte; each row is cut out and given to JSON.parse, so that a broken row does not hide the next.
 */
import { TunesmithError } from '../../errors.ts'
import { readJsonLines } from './jsonl.ts'
import { jsonRow, LONGEST_ROW_BYTES, type RawRow, tooLong } from './raw-row.ts'

const QUOTE = 0x22
const BACKSLASH = 0x5c
const COMMA = 0x2c
const COLON = 0x3a
const OPEN_LIST = 0x5b
const CLOSE_LIST = 0x5d
const OPEN_OBJECT = 0x7b
const CLOSE_OBJECT = 0x7d

/** The key whose list holds the rows where the file is an object. */
const ROWS_KEY = 'data'

/**
 * One batch per chunk; rows are numbered from 1. A file of one object per line is read as the JSONL that it is.
 *
 * @throws TunesmithError `ERR_DATA_FORMAT` where the frame is broken: what follows cannot be told apart into rows.
 */
export async function* readJson(
  chunks: AsyncIterable<Buffer>,
  path: string,
  longestBytes: number = LONGEST_ROW_BYTES,
): AsyncGenerator<RawRow[]> {
  const [start, all] = await startOf(chunks)
  if (isJsonLines(start)) {
    let row = 0
    for await (const batch of readJsonLines(all, longestBytes)) yield batch.map((raw) => ({ ...raw, line: ++row }))
    return
  }
  const frame = new Frame(path, longestBytes)
  for await (const chunk of all) {
    const rows = frame.push(chunk)
    if (rows.length > 0) yield rows
  }
  frame.end()
}

/** The first chunk, and all of them. */
async function startOf(chunks: AsyncIterable<Buffer>): Promise<[Buffer, AsyncIterable<Buffer>]> {
  const iterator = chunks[Symbol.asyncIterator]()
  const first = await iterator.next()
  const start = first.done ? Buffer.alloc(0) : first.value
  async function* all() {
    if (start.length > 0) yield start
    for (let next = await iterator.next(); !next.done; next = await iterator.next()) yield next.value
  }
  return [start, all()]
}

/** Whether the first line is an object by itself, and not the whole file's `{"data": [...]}`. */
function isJsonLines(start: Buffer): boolean {
  const text = start
    .subarray(0, start.indexOf('\n') + 1 || start.length)
    .toString('utf8')
    .trim()
  if (!text.startsWith('{')) return false
  try {
    return !Array.isArray((JSON.parse(text) as Record<string, unknown>)[ROWS_KEY])
  } catch {
    return false
  }
}

type Place =
  | 'start' // before the first byte that counts
  | 'key' // in an object, before a key or }
  | 'in key'
  | 'colon'
  | 'value' // before the value of a key
  | 'in value'
  | 'after value'
  | 'row' // in the list, before a row or ]
  | 'in row'
  | 'after row'
  | 'end'

class Frame {
  readonly #path: string
  readonly #longestBytes: number
  #place: Place = 'start'
  /** Whether a key or row must follow, because a comma has been. */
  #comma = false
  /** Whether the file is an object around the list. */
  #object = false
  /** Whether the list has been found. */
  #found = false
  #row = 0
  #line = 1
  #key = ''
  // The value, key or row that is being followed:
  /** Brackets that are open. */
  #open: number[] = []
  #inString = false
  #escaped = false
  #parts: Buffer[] = []
  #bytes = 0

  constructor(path: string, longestBytes: number) {
    this.#path = path
    this.#longestBytes = longestBytes
  }

  /** The rows that end in `chunk`. */
  push(chunk: Buffer): RawRow[] {
    const rows: RawRow[] = []
    let at = 0
    while (at < chunk.length) {
      if (this.#place === 'in row' || this.#place === 'in value' || this.#place === 'in key') {
        const end = this.#follow(chunk, at)
        if (this.#place !== 'in value') this.#keep(chunk.subarray(at, end.at))
        at = end.at
        if (!end.done) break
        if (this.#place === 'in row') {
          const row = this.#takeRow()
          if (row) rows.push(row)
        } else if (this.#place === 'in key') {
          this.#key = this.#takeKey()
          this.#place = 'colon'
        } else {
          this.#place = 'after value'
        }
        continue
      }
      const byte = chunk[at]!
      if (isSpace(byte)) {
        if (byte === 0x0a) this.#line++
        at++
      } else if (this.#step(byte)) {
        at++
      }
    }
    return rows
  }

  /** @throws TunesmithError where the file stops inside its frame. */
  end(): void {
    if (this.#place === 'start') return
    if (this.#place !== 'end') {
      const where = this.#object && !this.#found ? '' : ` ${this.#place === 'in row' ? 'in' : 'after'} row ${this.#row}`
      throw this.#broken(`ends${where} before it is closed; it seems to be cut short`)
    }
    if (!this.#found) {
      throw this.#broken(
        `is an object without a list "${ROWS_KEY}"; rows are expected as [...] or {"${ROWS_KEY}": [...]}`,
      )
    }
  }

  /** Takes one byte of the frame, or leaves it to what starts with it (false). */
  #step(byte: number): boolean {
    switch (this.#place) {
      case 'start':
        this.#object = byte === OPEN_OBJECT
        if (byte === OPEN_LIST) this.#enterList()
        else if (byte === OPEN_OBJECT) this.#place = 'key'
        else throw this.#broken(`starts with ${shown(byte)}; rows are expected as [...] or {"${ROWS_KEY}": [...]}`)
        return true
      case 'key':
        if (byte === CLOSE_OBJECT && !this.#comma) this.#place = 'end'
        else if (byte === QUOTE) this.#begin('in key')
        else throw this.#unexpected(byte, 'a quoted key')
        return byte === CLOSE_OBJECT
      case 'colon':
        if (byte !== COLON) throw this.#unexpected(byte, ':')
        this.#place = 'value'
        return true
      case 'value':
        if (this.#key === ROWS_KEY && byte === OPEN_LIST) {
          if (this.#found) throw this.#broken(`has "${ROWS_KEY}" twice`)
          this.#enterList()
          return true
        }
        if (byte === COMMA || byte === CLOSE_OBJECT || byte === CLOSE_LIST) throw this.#unexpected(byte, 'a value')
        this.#begin('in value')
        return false
      case 'after value':
        if (byte === COMMA) this.#place = 'key'
        else if (byte === CLOSE_OBJECT) this.#place = 'end'
        else throw this.#unexpected(byte, ', or }')
        this.#comma = byte === COMMA
        return true
      case 'row':
        if (byte === CLOSE_LIST && !this.#comma) {
          this.#leaveList()
          return true
        }
        this.#row++
        if (byte === COMMA || byte === CLOSE_OBJECT || byte === CLOSE_LIST) throw this.#unexpected(byte, 'a row')
        this.#begin('in row')
        return false
      case 'after row':
        if (byte === COMMA) this.#place = 'row'
        else if (byte === CLOSE_LIST) this.#leaveList()
        else throw this.#unexpected(byte, ', or ]')
        this.#comma = byte === COMMA
        return true
      default:
        throw this.#unexpected(byte, 'the end of the file')
    }
  }

  #enterList(): void {
    this.#found = true
    this.#comma = false
    this.#place = 'row'
  }

  #leaveList(): void {
    this.#place = this.#object ? 'after value' : 'end'
  }

  #begin(place: Place): void {
    this.#place = place
    this.#open = []
    this.#inString = false
    this.#escaped = false
  }

  /** Follows a value from `at`: where it ends, or the end of the chunk. */
  #follow(chunk: Buffer, start: number): { at: number; done: boolean } {
    const open = this.#open
    let at = start
    while (at < chunk.length) {
      const byte = chunk[at]!
      if (this.#inString) {
        at++
        if (this.#escaped) this.#escaped = false
        else if (byte === BACKSLASH) this.#escaped = true
        else if (byte === QUOTE) {
          this.#inString = false
          if (open.length === 0) return { at, done: true }
        } else if (byte === 0x0a) this.#line++
        continue
      }
      if (open.length === 0 && (byte === COMMA || byte === CLOSE_LIST || byte === CLOSE_OBJECT || isSpace(byte))) {
        return { at, done: true }
      }
      if (byte === QUOTE) {
        this.#inString = true
      } else if (byte === OPEN_LIST || byte === OPEN_OBJECT) {
        open.push(byte)
      } else if (byte === CLOSE_LIST || byte === CLOSE_OBJECT) {
        const expected = open.pop() === OPEN_LIST ? CLOSE_LIST : CLOSE_OBJECT
        if (byte !== expected) throw this.#unexpected(byte, shown(expected))
        if (open.length === 0) return { at: at + 1, done: true }
      } else if (byte === 0x0a) this.#line++
      at++
    }
    return { at, done: false }
  }

  /** Of a row that is too long only its length is kept. */
  #keep(part: Buffer): void {
    this.#bytes += part.length
    if (this.#bytes <= this.#longestBytes) this.#parts.push(part)
    else this.#parts = []
  }

  #take(): Buffer {
    const bytes = this.#parts.length === 1 ? this.#parts[0]! : Buffer.concat(this.#parts)
    this.#parts = []
    this.#bytes = 0
    return bytes
  }

  #takeRow(): RawRow | undefined {
    this.#place = 'after row'
    const long = this.#bytes > this.#longestBytes
    const bytes = this.#take()
    return long ? tooLong(this.#row, this.#longestBytes) : jsonRow(bytes, this.#row)
  }

  #takeKey(): string {
    const text = this.#take().toString('utf8')
    try {
      return JSON.parse(text) as string
    } catch {
      throw this.#broken(`has a broken key ${text.slice(0, 40)} on line ${this.#line}`)
    }
  }

  #unexpected(byte: number, expected: string): TunesmithError {
    const where = this.#row > 0 && this.#found ? ` (row ${this.#row})` : ''
    return this.#broken(`has ${shown(byte)} where ${expected} was expected, on line ${this.#line}${where}`)
  }

  #broken(what: string): TunesmithError {
    return new TunesmithError('ERR_DATA_FORMAT', `${this.#path} ${what}. Nothing after that can be read`)
  }
}

function isSpace(byte: number): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09
}

function shown(byte: number): string {
  return byte > 0x20 && byte < 0x7f ? String.fromCharCode(byte) : `byte 0x${byte.toString(16).padStart(2, '0')}`
}
