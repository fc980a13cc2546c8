/** How @huggingface/hub asks: with the signal of the run, and with failures of a busy server as errors of their own. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { HubEnvironment } from './environment.ts'

/**
 * A server that may answer later. The message carries the status too: of a failure inside a stream the library passes on
 * nothing else.
 */
export class BusyError extends Error {
  constructor(status: number) {
    super(`busy, status ${status}`)
  }
}

/** Options that every call of the library takes. */
export function requestOptions({ endpoint, token }: HubEnvironment, signal: AbortSignal | undefined) {
  const request: typeof fetch = async (url, init) => {
    const response = await fetch(url, { ...init, ...(signal && { signal }) })
    if (response.status < 500 && response.status !== 429) return response
    await response.body?.cancel()
    throw new BusyError(response.status)
  }
  return { hubUrl: endpoint, fetch: request, ...(token && { accessToken: token }) }
}

/**
 * Waits before attempt `attempt` + 1, longer each time.
 *
 * @throws the signal's reason
 */
export async function pause(attempt: number, { retryDelay }: HubEnvironment, signal: AbortSignal | undefined) {
  await sleep(retryDelay * 2 ** (attempt - 1), undefined, { ...(signal && { signal }) }).catch(() => {})
  signal?.throwIfAborted()
}
