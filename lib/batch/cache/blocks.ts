/**
 * Conversations as bytes: the inside of a cache file. A block holds whole conversations of about a million tokens as
 * 32-bit words, so that reading is one copy and the ids of a block are used where they were read.
 *
 * Words: conversations c, examples e, tokens t, runs r, keyed (0 or 1); then pieces[c], length[e], file[e], line[e],
 * runs[e], run length[r], run weight[r] (float32), ids[t], and where keyed eight words of SHA-256 per conversation.
 */
import type { Example } from '../../data/conversation.ts'
import type { Conversations } from '../pass.ts'

/** Tokens per block, but for a conversation that is longer by itself: 4 MiB of ids. */
const BLOCK_TOKENS = 1 << 20
const HEADER_WORDS = 5
const KEY_WORDS = 8

/** Files by name, in the order of their first row; blocks refer to them by index. */
export class FileNames {
  readonly names: string[] = []
  readonly #indices = new Map<string, number>()

  index(file: string): number {
    let index = this.#indices.get(file)
    if (index === undefined) {
      index = this.names.push(file) - 1
      this.#indices.set(file, index)
    }
    return index
  }
}

/** Cuts conversations into blocks, one after the other. */
export function* encodeBlocks({ pieces, keys }: Conversations, files: FileNames): Generator<Uint8Array> {
  for (let start = 0; start < pieces.length; ) {
    let end = start
    for (let tokens = 0; end < pieces.length; end++) {
      for (const { ids } of pieces[end]!) tokens += ids.length
      if (tokens > BLOCK_TOKENS && end > start) break
    }
    yield encodeBlock(pieces.slice(start, end), keys.slice(start, end), files)
    start = end
  }
}

function encodeBlock(pieces: readonly Example[][], keys: readonly string[], files: FileNames): Uint8Array {
  const examples = pieces.flat()
  const runs = examples.map(({ weights }) => countRuns(weights))
  const runCount = runs.reduce((sum, count) => sum + count, 0)
  const tokens = examples.reduce((sum, { ids }) => sum + ids.length, 0)
  const keyed = keys.length > 0
  const words = new Uint32Array(
    blockWords({ conversations: pieces.length, examples: examples.length, tokens, runs: runCount, keyed }),
  )
  words.set([pieces.length, examples.length, tokens, runCount, keyed ? 1 : 0])
  let at = HEADER_WORDS
  const put = (values: ArrayLike<number>) => {
    words.set(values, at)
    at += values.length
  }
  put(pieces.map((list) => list.length))
  put(examples.map(({ ids }) => ids.length))
  put(examples.map(({ source }) => files.index(source.file)))
  put(examples.map(({ source }) => lineWord(source.line)))
  put(runs)
  const lengths = words.subarray(at, at + runCount)
  const values = new Float32Array(words.buffer, 4 * (at + runCount), runCount)
  let run = 0
  for (const { weights } of examples) run = writeRuns(weights, lengths, values, run)
  at += 2 * runCount
  const ids = new Int32Array(words.buffer, 4 * at, tokens)
  let next = 0
  for (const example of examples) {
    ids.set(example.ids, next)
    next += example.ids.length
  }
  const bytes = new Uint8Array(words.buffer)
  for (const [index, key] of keys.entries())
    bytes.set(Buffer.from(key, 'base64'), 4 * (at + tokens + index * KEY_WORDS))
  return bytes
}

/**
 * Appends the conversations of a block to `done`. The arrays of the examples are views of `bytes`, which must start at
 * a multiple of four in its buffer.
 *
 * @throws Error where the block contradicts itself
 */
export function decodeBlock(bytes: Uint8Array, files: readonly string[], done: Conversations): void {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >>> 2)
  const [conversations = 0, examples = 0, tokens = 0, runs = 0, keyed = 0] = words
  const expected = blockWords({ conversations, examples, tokens, runs, keyed: keyed === 1 })
  if (words.length !== expected || bytes.byteLength % 4 !== 0) throw new Error('a block has the wrong size')
  let at = HEADER_WORDS
  const take = (count: number) => {
    at += count
    return words.subarray(at - count, at)
  }
  const pieces = take(conversations)
  const lengths = take(examples)
  const fileOf = take(examples)
  const lineOf = take(examples)
  const runsOf = take(examples)
  const runLengths = take(runs)
  const runWeights = new Float32Array(words.buffer, words.byteOffset + 4 * at, runs)
  at += runs
  const ids = new Int32Array(words.buffer, words.byteOffset + 4 * at, tokens)
  const weights = new Float32Array(tokens)
  if (sum(pieces) !== examples || sum(lengths) !== tokens || sum(runsOf) !== runs || sum(runLengths) !== tokens)
    throw new Error('the counts of a block do not add up')
  for (let run = 0, start = 0; run < runs; run++) {
    weights.fill(runWeights[run]!, start, start + runLengths[run]!)
    start += runLengths[run]!
  }
  let example = 0
  let token = 0
  for (const count of pieces) {
    const list: Example[] = []
    for (let i = 0; i < count; i++, example++) {
      const end = token + lengths[example]!
      const file = files[fileOf[example]!]
      if (file === undefined) throw new Error('a block names a file that is not listed')
      list.push({
        ids: ids.subarray(token, end),
        weights: weights.subarray(token, end),
        source: { file, line: lineOf[example]! },
      })
      token = end
    }
    done.pieces.push(list)
  }
  const keyBytes = Buffer.from(words.buffer, words.byteOffset + 4 * (at + tokens))
  for (let i = 0; keyed === 1 && i < conversations; i++)
    done.keys.push(keyBytes.toString('base64', 4 * KEY_WORDS * i, 4 * KEY_WORDS * (i + 1)))
}

interface BlockSizes {
  conversations: number
  examples: number
  tokens: number
  runs: number
  keyed: boolean
}

function blockWords({ conversations, examples, tokens, runs, keyed }: BlockSizes): number {
  return HEADER_WORDS + conversations * (keyed ? 1 + KEY_WORDS : 1) + 4 * examples + 2 * runs + tokens
}

function lineWord(line: number): number {
  if (line > 0xffffffff) throw new Error(`line ${line} is beyond 32 bits`)
  return line
}

/** Tokens of equal weight side by side: a conversation has a few such runs, however long it is. */
function countRuns(weights: Float32Array): number {
  let count = weights.length > 0 ? 1 : 0
  for (let i = 1; i < weights.length; i++) if (weights[i] !== weights[i - 1]) count++
  return count
}

function writeRuns(weights: Float32Array, lengths: Uint32Array, values: Float32Array, first: number): number {
  let run = first
  let start = 0
  for (let i = 1; i <= weights.length; i++) {
    if (i < weights.length && weights[i] === weights[start]) continue
    lengths[run] = i - start
    values[run] = weights[start]!
    run++
    start = i
  }
  return run
}

function sum(values: Uint32Array): number {
  let total = 0
  for (const value of values) total += value
  return total
}
