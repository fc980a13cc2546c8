/** The loop of generation: logits in, a token out, and the token in again. */
import type { NativeEngine } from '../native/addon.ts'
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
