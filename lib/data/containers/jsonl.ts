/** The rows of JSONL text of any size, in batches, without ever holding more than a chunk and a line. */
import { RowProblem } from '../rows.ts'
import { jsonRow, LONGEST_ROW_BYTES, type RawRow, tooLong } from './raw-row.ts'

const NEWLINE = 0x0a

/** One batch per chunk. UTF-8; `\n` and `\r\n`; lines are numbered from 1, blank ones count but are not given. */
export async function* readJsonLines(
  chunks: AsyncIterable<Buffer>,
  longestBytes: number = LONGEST_ROW_BYTES,
): AsyncGenerator<RawRow[]> {
  let pending: Buffer[] = []
  let pendingBytes = 0
  let line = 0
  const take = (end: Buffer): RawRow | undefined => {
    line++
    const bytes = pending.length === 0 ? end : Buffer.concat([...pending, end])
    const long = pendingBytes + end.length > longestBytes
    pending = []
    pendingBytes = 0
    if (long) return tooLong(line, longestBytes)
    return bytes.length < 8 && /^[[{]$/.test(bytes.toString('latin1').trim()) ? spread(line) : jsonRow(bytes, line)
  }
  for await (const chunk of chunks) {
    const rows: RawRow[] = []
    let start = 0
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, start)) {
      const taken = take(chunk.subarray(start, end))
      if (taken) rows.push(taken)
      start = end + 1
    }
    const rest = chunk.subarray(start)
    // Of a line that is too long only its length is kept.
    pendingBytes += rest.length
    if (rest.length > 0 && pendingBytes <= longestBytes) pending.push(rest)
    else if (pendingBytes > longestBytes) pending = []
    if (rows.length > 0) yield rows
  }
  if (pendingBytes > 0) {
    const last = take(Buffer.alloc(0))
    if (last) yield [last]
  }
}

/** A bracket by itself: somebody's JSON, written over several lines. */
function spread(line: number): RawRow {
  const what = 'is a bracket by itself: this is one JSON document over several lines and not JSONL'
  return { line, problem: new RowProblem('', `${what}; rename the file to .json`) }
}
