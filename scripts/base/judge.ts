/** Lets a model answer the held-out prompts and judges the answers. */
import type { Model } from '../../lib/index.ts'
import { checkAnswer, type Request, readRequests } from './check-answer.ts'
import { heldOut } from './words.ts'

/** More than twice the longest demonstration. */
export const MAX_NEW_TOKENS = 256

export interface Judged {
  request: Request
  answer: string
  /** The model produced a stop token within MAX_NEW_TOKENS. */
  stopped: boolean
  /** What the checker found; empty: accepted. */
  problems: string[]
}

/** Shares, 0 to 1. */
export interface Summary {
  stopped: number
  accepted: number
  /** Accepted among stories, among questions, and among prompts with words that no demonstration has. */
  stories: number
  questions: number
  newWords: number
}

interface Requirement {
  stopped: (share: number) => boolean
  accepted: (share: number) => boolean
}

export const thresholds: Record<'base' | 'tuned', Requirement> = {
  base: { stopped: (share) => share <= 0.1, accepted: (share) => share <= 0.1 },
  tuned: { stopped: (share) => share >= 0.95, accepted: (share) => share >= 0.7 },
}

export const passes = (summary: Summary, requirement: Requirement): boolean =>
  requirement.stopped(summary.stopped) && requirement.accepted(summary.accepted)

/** Greedy answers to the first `limit` prompts of the file. */
export async function judge(model: Model, path: string, limit = Number.POSITIVE_INFINITY): Promise<Judged[]> {
  const results: Judged[] = []
  for (const request of readRequests(path).slice(0, limit)) {
    const messages = [{ role: 'user' as const, content: request.prompt }]
    const { text, finishReason } = await model.generate(messages, { maxNewTokens: MAX_NEW_TOKENS })
    const problems = checkAnswer(request, text)
    results.push({ request, answer: text, stopped: finishReason === 'stop', problems })
  }
  return results
}

const newWords = new RegExp(
  `\\b(?:${[...heldOut.names.map(({ text }) => text), ...heldOut.animals, ...heldOut.things.map(({ noun }) => noun)].join('|')})\\b`,
)

export function summarize(results: readonly Judged[]): Summary {
  const share = (of: readonly Judged[], holds: (result: Judged) => boolean) =>
    of.length === 0 ? 0 : of.filter(holds).length / of.length
  const accepted = ({ problems }: Judged) => problems.length === 0
  const acceptedWhere = (holds: (request: Request) => boolean) =>
    share(
      results.filter(({ request }) => holds(request)),
      accepted,
    )
  return {
    stopped: share(results, ({ stopped }) => stopped),
    accepted: share(results, accepted),
    stories: acceptedWhere(({ kind }) => kind === 'story'),
    questions: acceptedWhere(({ kind }) => kind === 'question'),
    newWords: acceptedWhere(({ prompt }) => newWords.test(prompt)),
  }
}
