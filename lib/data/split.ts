/** Setting conversations aside for evaluation so that none of them has a twin in the training data. */
import { createHash } from 'node:crypto'
import { TunesmithError } from '../errors.ts'
import { isConversation, isTokenRow, type Row } from './conversation.ts'

/**
 * What keeps rows on one side: the first user turn (datasets often hold several answers to one question, or one thread
 * per leaf of a tree), else the first message; of text and tokens what comes before the first token with loss, else all.
 */
export function splitKey(row: Row): string {
  if (isTokenRow(row)) {
    const context = row.weights?.findIndex((weight) => weight > 0) ?? -1
    return hash((context > 0 ? row.ids.subarray(0, context) : row.ids).join())
  }
  if (!isConversation(row)) return hash(row.promptLength ? row.text.slice(0, row.promptLength) : row.text)
  const first = row.messages.find(({ role }) => role === 'user') ?? row.messages[0]!
  return hash(first.content ?? JSON.stringify(first))
}

function hash(text: string): string {
  return createHash('sha256').update(text).digest('base64')
}

/**
 * Chooses about `fraction` of the rows with these keys for evaluation: whole groups of equal keys, in an order drawn
 * from `seed`, as long as they fit. Returns one flag per row. The same rows and seed always give the same side,
 * whatever their order.
 *
 * @throws TunesmithError `ERR_EVAL_SPLIT` where one side would stay empty.
 */
export function splitForEvaluation(keys: readonly string[], fraction: number, seed: number): boolean[] {
  const groups = new Map<string, number>()
  for (const key of keys) groups.set(key, (groups.get(key) ?? 0) + 1)
  const ranked = [...groups.entries()]
    .map(([key, size]) => ({ key, size, rank: hash(`${seed}:${key}`) }))
    .sort((a, b) => (a.rank < b.rank ? -1 : 1))
  const target = Math.max(1, Math.round(fraction * keys.length))
  const chosen = new Set<string>()
  let taken = 0
  for (const { key, size } of ranked) {
    if (taken === target) break
    if (taken + size > target) continue
    chosen.add(key)
    taken += size
  }
  if (taken === 0 || taken === keys.length) {
    throw new TunesmithError(
      'ERR_EVAL_SPLIT',
      `data.evalFraction ${fraction} of ${keys.length} conversations with ${groups.size} different first user turns ` +
        `leaves ${taken === 0 ? 'none for evaluation' : 'none for training'}; change the fraction or give data.eval a file`,
    )
  }
  return keys.map((key) => chosen.has(key))
}
