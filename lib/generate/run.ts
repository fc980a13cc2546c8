/** The loop of generation: logits in, a token out, and the token in again; for one answer, or for several at once. */
import type { CacheBatch, NativeEngine } from '../native/addon.ts'
import type { Answer } from './answer.ts'

/**
 * Lets `answer` grow from the prompt `ids` until it is over. Yields the text that is sure as it comes, not what the
 * answer's end() has left.
 */
export async function* grow(
  engine: Pick<NativeEngine, 'extend'>,
  ids: Int32Array,
  answer: Answer,
  signal?: AbortSignal,
): AsyncGenerator<string, void, undefined> {
  let logits = await engine.extend(ids, 0)
  for (;;) {
    signal?.throwIfAborted()
    const piece = await answer.take(logits)
    if (piece !== '') yield piece
    if (answer.finishReason) return
    const { token, position } = answer.last
    logits = await engine.extend(Int32Array.of(token), position)
  }
}

export interface Job {
  ids: Int32Array
  answer: Answer
}

/**
 * Lets the answers of all jobs grow until they are over, as many at once as the cache has sequences: each step takes one
 * token of every running answer through the model together, and where one ends, the next prompt takes its place.
 */
export async function growAll(
  engine: Pick<NativeEngine, 'extendAll'>,
  jobs: readonly Job[],
  sequences: number,
  signal?: AbortSignal,
): Promise<void> {
  const running = new Map<number, Job>()
  let next = 0
  for (;;) {
    for (let slot = 0; slot < sequences; slot++)
      while (!running.has(slot) && next < jobs.length) {
        signal?.throwIfAborted()
        const job = jobs[next++]!
        await job.answer.take(await engine.extendAll(cacheBatch([{ slot, position: 0, tokens: job.ids }])))
        if (!job.answer.finishReason) running.set(slot, job)
      }
    if (running.size === 0) return
    signal?.throwIfAborted()
    const rows = [...running]
    const logits = await engine.extendAll(cacheBatch(rows.map(([slot, { answer }]) => lastToken(slot, answer))))
    const vocabulary = logits.length / rows.length
    for (const [row, [slot, { answer }]] of rows.entries()) {
      await answer.take(logits.subarray(row * vocabulary, (row + 1) * vocabulary))
      if (answer.finishReason) running.delete(slot)
    }
  }
}

interface Continuation {
  slot: number
  position: number
  tokens: Int32Array
}

function lastToken(slot: number, { last: { token, position } }: Answer): Continuation {
  return { slot, position, tokens: Int32Array.of(token) }
}

function cacheBatch(sequences: readonly Continuation[]): CacheBatch {
  const cuSeqlens = new Int32Array(sequences.length + 1)
  for (const [index, { tokens }] of sequences.entries()) cuSeqlens[index + 1] = cuSeqlens[index]! + tokens.length
  const tokens = new Int32Array(cuSeqlens.at(-1)!)
  for (const [index, sequence] of sequences.entries()) tokens.set(sequence.tokens, cuSeqlens[index])
  return {
    tokens,
    cuSeqlens,
    slots: Int32Array.from(sequences, ({ slot }) => slot),
    positions: Int32Array.from(sequences, ({ position }) => position),
  }
}
