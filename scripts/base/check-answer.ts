/**
 * Accepts or rejects an answer to a request of the demonstrations' kind.
 *
 *     npx tsx scripts/base/check-answer.ts --prompts assets/heldout.jsonl --answers answers.jsonl
 *
 * reads one `{"answer": ...}` a line, in the order of the prompts, and prints what is wrong with each and the share
 * accepted.
 */
import { readFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'

export interface Request {
  kind: 'story' | 'question'
  prompt: string
  /** Words that the answer must hold, each whole and in this form. */
  mentions: string[]
  /** Words that would make it the answer to another question. */
  avoids: string[]
}

interface Limits {
  sentences: readonly [least: number, most: number]
  words: readonly [least: number, most: number]
}

/** The demonstrations' stories have 6 to 10 sentences and at most 115 words, their answers to questions have one. */
const limits: Record<Request['kind'], Limits> = {
  story: { sentences: [4, 12], words: [30, 140] },
  question: { sentences: [1, 1], words: [2, 20] },
}

/** Marks of another turn or of the template: the answer ran on into somebody else's words. */
const leaks = /<\|?|\|>|\b(?:user|assistant|system)\s*[:\n]/i

export function sentencesOf(text: string): string[] {
  return text.split(/(?<=[.!?]["']?)\s+/).filter((sentence) => /\w/.test(sentence))
}

const wordsOf = (text: string) => text.toLowerCase().match(/[a-z']+/g) ?? []

function holds(text: string, phrase: string): boolean {
  return new RegExp(`(?<![\\w-])${phrase.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&')}(?![\\w-])`).test(text)
}

/** The same sentence twice, or the same four words three times: the sign of a model that goes round in circles. */
function repeats(sentences: string[], words: string[]): boolean {
  const plain = sentences.map((sentence) => wordsOf(sentence).join(' '))
  if (new Set(plain).size < plain.length) return true
  const seen = new Map<string, number>()
  for (let at = 0; at + 4 <= words.length; at++) {
    const run = words.slice(at, at + 4).join(' ')
    const times = (seen.get(run) ?? 0) + 1
    if (times === 3) return true
    seen.set(run, times)
  }
  return false
}

/** What is wrong with the answer; nothing where it is accepted. */
export function checkAnswer(request: Pick<Request, 'kind' | 'mentions' | 'avoids'>, answer: string): string[] {
  const text = answer.trim()
  if (text === '') return ['is empty']
  const problems: string[] = []
  const sentences = sentencesOf(text)
  const words = wordsOf(text)
  const { sentences: range, words: length } = limits[request.kind]
  for (const phrase of request.mentions) if (!holds(text, phrase)) problems.push(`does not mention "${phrase}"`)
  for (const phrase of request.avoids) if (holds(text, phrase)) problems.push(`mentions "${phrase}"`)
  if (sentences.length < range[0] || sentences.length > range[1]) {
    problems.push(`has ${sentences.length} sentences, not ${range[0]} to ${range[1]}`)
  }
  if (words.length < length[0] || words.length > length[1]) {
    problems.push(`has ${words.length} words, not ${length[0]} to ${length[1]}`)
  }
  if (!/[.!?]["']?$/.test(text)) problems.push('does not end with a sentence')
  if (text.includes('\n')) problems.push('runs over more than one paragraph')
  if (leaks.test(text)) problems.push("holds a mark of the template or another speaker's turn")
  if (repeats(sentences, words)) problems.push('repeats itself')
  return problems
}

/** The requests of a held-out file: one JSON object a line, `messages` with the user's turn, and what to check. */
export function readRequests(path: string): Request[] {
  return jsonLines(path).map((row) => {
    const { messages, kind, mentions, avoids } = row as Omit<Request, 'prompt'> & { messages: { content: string }[] }
    return { kind, prompt: messages[0]!.content, mentions, avoids }
  })
}

function jsonLines(path: string): unknown[] {
  return readFileSync(path, 'utf8')
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line) => JSON.parse(line))
}

function main(): void {
  const { values } = parseArgs({
    options: { prompts: { type: 'string', default: 'assets/heldout.jsonl' }, answers: { type: 'string' } },
  })
  if (values.answers === undefined) throw new Error('Say where the answers are: --answers FILE.')
  const requests = readRequests(values.prompts)
  const answers = jsonLines(values.answers) as { answer: string }[]
  if (answers.length !== requests.length) {
    throw new Error(`${values.answers} has ${answers.length} answers for ${requests.length} prompts.`)
  }
  let accepted = 0
  for (const [index, request] of requests.entries()) {
    const problems = checkAnswer(request, answers[index]!.answer)
    if (problems.length === 0) accepted++
    else console.log(`${index + 1}: ${problems.join('; ')}`)
  }
  console.log(`${accepted} of ${requests.length} accepted`)
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) main()
