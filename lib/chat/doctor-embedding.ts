/** Whether the control tokens of a template have embeddings that pretraining has touched. */
import type { AddedToken, Tokenizer } from './tokenizer.ts'

/** Rows of the embedding matrix, [ids.length][hiddenSize]. */
export type EmbeddingReader = (ids: readonly number[]) => Promise<readonly Float32Array[]>

export interface EmbeddingFinding {
  verdict: 'ok' | 'warning'
  detail: string
}

/** Ordinary tokens that control tokens are compared with. */
const SAMPLE = 200
/** A row whose norm is below this share of the median of ordinary ones was left near its start. */
const SMALL = 0.2
/** Cosine from which two rows are the same for all purposes. */
const SAME = 0.9999

/** @param texts token ids of rendered conversations */
export async function examineControlTokens(
  texts: readonly Int32Array[],
  { added, vocabSize }: Pick<Tokenizer, 'added' | 'vocabSize'>,
  embedding: EmbeddingReader,
): Promise<EmbeddingFinding> {
  const byId = new Map(added.map((token) => [token.id, token]))
  const used = new Set<number>()
  for (const ids of texts) for (const id of ids) if (byId.has(id)) used.add(id)
  if (used.size === 0) return { verdict: 'ok', detail: 'the template writes none' }
  const ordinary = ordinaryIds(vocabSize, byId)
  const norms = (await embedding(ordinary)).map(norm).sort((a, b) => a - b)
  const median = norms[norms.length >> 1] ?? 0
  const control = [...byId.values()].filter(({ id }) => id < vocabSize).slice(0, 1000)
  const rows = new Map(control.map(({ id }) => [id, undefined as Float32Array | undefined]))
  const read = await embedding(control.map(({ id }) => id))
  for (const [index, { id }] of control.entries()) rows.set(id, read[index])
  const untrained = names(used, byId, (id) => isUntrained(rows.get(id), median))
  const twins = findTwins(used, control, rows)
  const faults: string[] = []
  if (untrained.length > 0) {
    faults.push(
      `${untrained.join(', ')} have embeddings that look untrained (their norm is far below that of other tokens)`,
    )
  }
  if (twins.length > 0) {
    faults.push(
      `${twins.map((pair) => pair.join(' and ')).join('; ')} have the same embedding, so that the model cannot tell them apart yet`,
    )
  }
  if (faults.length === 0)
    return { verdict: 'ok', detail: `the ${used.size} that are written have embeddings of their own` }
  const remedy =
    'Full fine-tuning has to learn them from your rows: use a template whose tokens the model knows, or many rows'
  return { verdict: 'warning', detail: `${faults.join('; ')}. ${remedy}` }
}

/** Ids spread evenly over the vocabulary. */
function ordinaryIds(vocabSize: number, added: ReadonlyMap<number, AddedToken>): number[] {
  const step = Math.max(1, Math.floor(vocabSize / SAMPLE))
  const ids: number[] = []
  for (let id = 0; id < vocabSize; id += step) if (!added.has(id)) ids.push(id)
  return ids
}

function isUntrained(row: Float32Array | undefined, median: number): boolean {
  return row !== undefined && (norm(row) < SMALL * median || row.every((value) => value === row[0]))
}

function names(
  used: ReadonlySet<number>,
  tokens: ReadonlyMap<number, AddedToken>,
  holds: (id: number) => boolean,
): string[] {
  return [...used].filter(holds).map((id) => tokens.get(id)!.text)
}

/** Pairs of which at least one is written by the template. */
function findTwins(
  used: ReadonlySet<number>,
  control: readonly AddedToken[],
  rows: ReadonlyMap<number, Float32Array | undefined>,
): [string, string][] {
  const twins: [string, string][] = []
  for (const id of used) {
    const own = control.find((token) => token.id === id)
    const row = rows.get(id)
    if (!own || !row) continue
    const twin = control.find((other) => {
      const theirs = rows.get(other.id)
      return other.id !== id && !(used.has(other.id) && other.id < id) && theirs !== undefined && same(row, theirs)
    })
    if (twin) twins.push([own.text, twin.text])
  }
  return twins
}

function norm(row: Float32Array): number {
  return Math.sqrt(dot(row, row))
}

function dot(a: Float32Array, b: Float32Array): number {
  let sum = 0
  for (let index = 0; index < a.length; index++) sum += a[index]! * b[index]!
  return sum
}

function same(a: Float32Array, b: Float32Array): boolean {
  const lengths = norm(a) * norm(b)
  return lengths > 0 && dot(a, b) / lengths > SAME
}
