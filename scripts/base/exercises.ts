/** Rows of the base model's training text that are there to be copied. */
import type { Random } from '../random.ts'

/** Text with its length in tokens, what separates it from the next piece included. */
export interface Piece {
  text: string
  tokens: number
}

interface Settings {
  maxTokens: number
  /** Tokens of each text. */
  count: (texts: string[]) => Promise<number[]>
  random: Random
}

const ROWS = 3000
/** Words in a list. */
const LIST_LENGTH = [8, 40] as const
/** Phrases in a row, and words in a phrase. */
const PHRASES = [4, 12] as const
const PHRASE_LENGTH = [2, 6] as const
/** Words that the stories have at least so often come into the exercises. */
const OCCURRENCES = 20

/**
 * Words that nothing helps to predict but looking up what came before. They make a model of this size copy from its
 * context (induction heads, arXiv 2209.11895), which it does not learn from so few stories. Without them
 * its loss on a repeated passage was that on a new one, and fine-tuning learned the demonstrations' words by heart
 * instead of copying those of the prompt.
 *
 * Every other row is one list of random words over and over; the others are a few short phrases in random order, again
 * and again, so that only the words tell where to look, not the distance.
 */
export async function exercises(stories: readonly string[], { maxTokens, count, random }: Settings): Promise<Piece[]> {
  const pool = await wordPool(stories, count)
  const words = (range: readonly [number, number]) =>
    Array.from({ length: random.between(...range) }, () => random.pick(pool))
  const rows: Piece[] = []
  while (rows.length < ROWS) {
    const list = words(LIST_LENGTH)
    const phrases = Array.from({ length: random.between(...PHRASES) }, () => words(PHRASE_LENGTH))
    const next = rows.length % 2 === 0 ? () => list : () => random.pick(phrases)
    rows.push(fill(next, maxTokens))
  }
  return rows
}

/** The words of the exercises, each with the space before it. */
async function wordPool(stories: readonly string[], count: Settings['count']): Promise<Piece[]> {
  const occurrences = new Map<string, number>()
  for (const story of stories) {
    for (const word of story.match(/[A-Za-z]+/g) ?? []) occurrences.set(word, (occurrences.get(word) ?? 0) + 1)
  }
  const pool = [...occurrences].filter(([, times]) => times >= OCCURRENCES).map(([word]) => word)
  const tokens = await count(pool.map((word) => ` ${word}`))
  return pool.map((text, index) => ({ text, tokens: tokens[index]! }))
}

/** A row of words, `next()` after `next()`. */
function fill(next: () => Piece[], maxTokens: number): Piece {
  const row: string[] = []
  let tokens = 1
  for (;;) {
    for (const word of next()) {
      if (tokens + word.tokens > maxTokens) return { text: row.join(' '), tokens }
      row.push(word.text)
      tokens += word.tokens
    }
  }
}
