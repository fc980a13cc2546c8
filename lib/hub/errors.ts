/** From what a request to the hub met to one clear error: what was asked for, of whom, and what to do. */
import { HubApiError } from '@huggingface/hub'
import { TunesmithError } from '../errors.ts'
import type { HubEnvironment } from './environment.ts'
import { type HubRef, refName } from './ref.ts'
import { BusyError } from './request.ts'

/** Whether the same request may succeed later: the network failed, or the server was busy. */
export function isTransient(error: unknown): boolean {
  return busyStatus(error) !== undefined || networkCode(error) !== undefined
}

/** WebBlob passes on the message of a failure and nothing else. */
function busyStatus(error: unknown): string | undefined {
  const message = error instanceof BusyError ? error.message : error
  return typeof message === 'string' ? /^busy, status (\d+)$/.exec(message)?.[1] : undefined
}

/** Node's code of a failed connection, e.g. ENOTFOUND; undefined where the network did not fail. */
function networkCode(error: unknown): string | undefined {
  if (error === 'fetch failed' || error === 'terminated') return error
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (typeof code === 'string' && (/^E[A-Z]+$/.test(code) || code.startsWith('UND_ERR'))) return code
    // One per address that was tried.
    if (cause instanceof AggregateError && cause.errors.length > 0) return networkCode(cause.errors[0])
  }
  return error instanceof TypeError && /fetch failed|terminated/.test(error.message) ? error.message : undefined
}

/** `error` as a TunesmithError; `file` is what was being fetched, if one file was. */
export function hubError(error: unknown, ref: HubRef, hub: HubEnvironment, file?: string): unknown {
  if (error instanceof TunesmithError) return error
  const what = file === undefined ? refName(ref) : `${file} of ${refName(ref)}`
  const fail = (code: string, message: string) => new TunesmithError(code, message, { cause: error })
  if (error instanceof HubApiError) {
    const { statusCode } = error
    if (statusCode === 401 || statusCode === 403) {
      const remedy = hub.token
        ? 'HF_TOKEN was sent, but does not open it: check the name, and accept its terms on its page'
        : 'check the name; for a private or gated repository set HF_TOKEN'
      return fail('ERR_HUB_ACCESS', `${hub.endpoint} gives no access to ${what} (status ${statusCode}): ${remedy}`)
    }
    if (statusCode === 404) {
      return fail('ERR_HUB_NOT_FOUND', `${hub.endpoint} has no ${what}; check name and revision`)
    }
    return fail('ERR_HUB_DOWNLOAD', `${hub.endpoint} answered ${statusCode} for ${what}; try again later`)
  }
  const status = busyStatus(error)
  if (status) return fail('ERR_HUB_DOWNLOAD', `${hub.endpoint} answered ${status} for ${what}; try again later`)
  const code = networkCode(error)
  if (code !== undefined) return unreachable(ref, hub, `${hub.endpoint} cannot be reached (${code})`, file, error)
  if (error instanceof TypeError && error.message.includes('access token')) {
    return fail('ERR_HUB_ACCESS', `HF_TOKEN is not a token of the hub: ${error.message}`)
  }
  if (error instanceof Error && error.name === 'AbortError') return error
  return fail('ERR_HUB_DOWNLOAD', `Cannot fetch ${what} from ${hub.endpoint}: ${(error as Error).message ?? error}`)
}

/** Nothing in the cache, and no way to fetch it. */
export function unreachable(
  ref: HubRef,
  hub: HubEnvironment,
  why: string,
  file?: string,
  cause?: unknown,
): TunesmithError {
  const what = file === undefined ? refName(ref) : `${file} of ${refName(ref)}`
  const type = ref.type === 'dataset' ? ' --repo-type dataset' : ''
  return new TunesmithError(
    'ERR_HUB_UNREACHABLE',
    `${what} is not in the cache (${hub.cacheFolder}), and ${why}. To work offline, fetch it once where there is a network ` +
      `(hf download ${ref.id}${type}), copy the cache or point HF_HUB_CACHE to it; or give a local path. HF_ENDPOINT names ` +
      'a mirror',
    { cause },
  )
}
