/**
 * Turns the corpus into the base model's training rows.
 *
 *     npx tsx scripts/base/prepare-corpus.ts [--corpus ../shared/corpus] [--out runs/base-corpus] [--passes 3]
 *
 * Every story comes `passes` times, each time in another order and with other names and things (retell.ts); every chosen
 * book comes once, during the first two thirds, so that training ends on stories alone. The text is laid out as one
 * stream and cut at paragraph ends into rows of at most MAX_TOKENS tokens. Stories follow one another without an
 * end-of-text token: the base learns to write on and on, and stopping is left to fine-tuning. Some rows are there only
 * to be copied, see tellTwice() and exercises.ts.
 *
 * Writes train.jsonl and eval.jsonl (`{"text": ...}` rows, to be read in this order) and stats.json.
 */
import { createReadStream, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { createGunzip } from 'node:zlib'
import { Tokenizer } from 'tokenizers'
import { Random } from '../random.ts'
import { exercises, type Piece } from './exercises.ts'
import { Retelling } from './retell.ts'

/** Under the model's context of 512, with room for tokens that a trainer may put around a row. */
const MAX_TOKENS = 504
/** A book is taken when at least this share of its words is among the stories' commonest words. */
const BOOK_SHARE = 0.875
const COMMON_WORDS = 3000
/** Whole sources kept for validation: TinyStories' own validation split and two books. */
const HELD_OUT = ['yuninxia/moe-routing-bench', 'The-Tale-of-Tommy-Fox_', 'The-Story-of-a-Plush-Bear_']
/** One story in so many is told twice in a row. */
const REPEAT_EVERY = 16
const SEED = 20240

interface Row {
  text: string
  source: string
}

const { values } = parseArgs({
  options: {
    corpus: { type: 'string', default: '../shared/corpus' },
    out: { type: 'string', default: 'runs/base-corpus' },
    tokenizer: { type: 'string', default: 'assets/base/tokenizer.json' },
    passes: { type: 'string', default: '3' },
  },
})

async function read(name: string): Promise<Row[]> {
  const lines = createInterface({ input: createReadStream(join(values.corpus, name)).pipe(createGunzip()) })
  const rows: Row[] = []
  for await (const line of lines) rows.push(JSON.parse(line) as Row)
  return rows
}

const heldOut = (row: Row) => HELD_OUT.some((name) => row.source.includes(name))
const words = (text: string) => text.toLowerCase().match(/[a-z']+/g) ?? []

function commonest(rows: Row[], count: number): Set<string> {
  const occurrences = new Map<string, number>()
  for (const row of rows) for (const word of words(row.text)) occurrences.set(word, (occurrences.get(word) ?? 0) + 1)
  const sorted = [...occurrences].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1))
  return new Set(sorted.slice(0, count).map(([word]) => word))
}

function bySource(rows: Row[]): Map<string, Row[]> {
  const sources = new Map<string, Row[]>()
  for (const row of rows) {
    const list = sources.get(row.source)
    if (list) list.push(row)
    else sources.set(row.source, [row])
  }
  return sources
}

function shareOfCommon(rows: Row[], common: Set<string>): number {
  let known = 0
  let total = 0
  for (const row of rows) {
    for (const word of words(row.text)) {
      total++
      if (common.has(word)) known++
    }
  }
  return total === 0 ? 0 : known / total
}

const tokenizer = Tokenizer.fromFile(values.tokenizer)

async function count(texts: string[]): Promise<number[]> {
  const encodings = await tokenizer.encodeBatch(texts, { addSpecialTokens: false })
  return encodings.map((encoding) => encoding.getLength())
}

/** Paragraphs, cut further at sentence ends where one alone would not fit into a row. */
async function paragraphs(text: string): Promise<Piece[]> {
  const texts = text.split('\n\n').filter((piece) => piece.trim() !== '')
  const counts = await count(texts.map((piece) => `${piece}\n\n`))
  const out: Piece[] = []
  for (const [index, piece] of texts.entries()) {
    if (counts[index]! <= MAX_TOKENS) {
      out.push({ text: piece, tokens: counts[index]! })
      continue
    }
    const sentences = piece.match(/.+?(?:[.!?]["']?(?=\s)|$)\s*/gs) ?? [piece]
    const lengths = await count(sentences.map((sentence) => `${sentence}\n\n`))
    // A single sentence longer than a row is a list or a damaged passage: left out.
    for (const [at, sentence] of sentences.entries()) {
      if (lengths[at]! <= MAX_TOKENS) out.push({ text: sentence.trim(), tokens: lengths[at]! })
    }
  }
  return out
}

/** Fills rows with consecutive paragraphs up to MAX_TOKENS. */
function cut(stream: Piece[]): Piece[] {
  const rows: Piece[] = []
  let pieces: string[] = []
  let tokens = 0
  const flush = () => {
    if (pieces.length > 0) rows.push({ text: pieces.join('\n\n'), tokens })
    pieces = []
    tokens = 0
  }
  for (const paragraph of stream) {
    if (tokens + paragraph.tokens > MAX_TOKENS) flush()
    pieces.push(paragraph.text)
    tokens += paragraph.tokens
  }
  flush()
  return rows
}

/** Makes a row of every REPEAT_EVERY-th story that fits into one twice: the second telling is copying. */
function tellTwice(documents: Piece[][]): { twice: Piece[]; once: Piece[][] } {
  const twice: Piece[] = []
  const once: Piece[][] = []
  for (const [index, document] of documents.entries()) {
    const tokens = 2 * sum(document)
    if (index % REPEAT_EVERY !== 0 || tokens > MAX_TOKENS) {
      once.push(document)
      continue
    }
    twice.push({ text: [...document, ...document].map(({ text }) => text).join('\n\n'), tokens })
  }
  return { twice, once }
}

/** Puts `few` evenly between `many`. */
function spread<T>(few: T[], many: T[]): T[] {
  return many.flatMap((item, index) => {
    const [from, to] = [index, index + 1].map((at) => Math.floor((at * few.length) / many.length))
    return [...few.slice(from, to), item]
  })
}

async function stream(rows: Row[]): Promise<Piece[][]> {
  const documents: Piece[][] = []
  for (const row of rows) documents.push(await paragraphs(row.text))
  return documents
}

const sum = (rows: Piece[]) => rows.reduce((total, row) => total + row.tokens, 0)

function write(name: string, rows: Piece[]): void {
  writeFileSync(join(values.out, name), rows.map((row) => `${JSON.stringify({ text: row.text })}\n`).join(''))
}

mkdirSync(values.out, { recursive: true })
const passes = Number(values.passes)
const stories = (await read('tinystories.jsonl.gz')).filter((row) => !row.source.includes('(truecased)'))
const trainStories = stories.filter((row) => !heldOut(row))
const common = commonest(trainStories, COMMON_WORDS)

const evalRows: Piece[] = cut((await stream(stories.filter(heldOut))).flat())
const retelling = new Retelling(trainStories.map(({ text }) => text))
const bookRows: Piece[] = []
const chosen: string[] = []
for (const [source, rows] of bySource(await read('childrens-books.jsonl.gz'))) {
  if (rows.some(heldOut)) {
    evalRows.push(...cut((await stream(rows)).flat()))
  } else if (shareOfCommon(rows, common) >= BOOK_SHARE) {
    chosen.push(source)
    bookRows.push(...cut((await stream(rows)).flat()))
  }
}

const random = new Random(SEED)
const exerciseRows = await exercises(
  trainStories.map(({ text }) => text),
  { maxTokens: MAX_TOKENS, count, random },
)
const storyRows: Piece[] = []
for (let pass = 0; pass < passes; pass++) {
  const told = trainStories.map((row) => ({ ...row, text: retelling.retell(row.text, random) }))
  const { twice, once } = tellTwice(random.shuffle(await stream(told)))
  storyRows.push(...random.shuffle([...twice, ...cut(once.flat())]))
}
const mixed = Math.floor((2 * (storyRows.length + bookRows.length)) / 3) - bookRows.length
if (mixed < 0) throw new RangeError(`The books outweigh the stories: raise --passes above ${passes}.`)
const early = random.shuffle([...storyRows.slice(0, mixed), ...bookRows])
const train = spread(exerciseRows, [...early, ...storyRows.slice(mixed)])

write('train.jsonl', train)
write('eval.jsonl', random.shuffle(evalRows))
const stats = {
  passes,
  rows: train.length,
  tokens: sum(train),
  storyTokensPerPass: Math.round(sum(storyRows) / passes),
  bookTokens: sum(bookRows),
  exerciseTokens: sum(exerciseRows),
  books: chosen.sort(),
  evalRows: evalRows.length,
  evalTokens: sum(evalRows),
}
writeFileSync(join(values.out, 'stats.json'), `${JSON.stringify(stats, null, 2)}\n`)
console.log({ ...stats, books: chosen.length })
