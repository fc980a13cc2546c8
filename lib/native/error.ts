/** Errors of the native side as the package's own. */
import { TunesmithError } from '../errors.ts'

/** An error that native code threw (it carries an `ERR_...` code) as a TunesmithError; anything else as it is. */
export function asTunesmithError(error: unknown): unknown {
  if (error instanceof TunesmithError || !(error instanceof Error)) return error
  const { code } = error as { code?: unknown }
  // Node's own errors have such codes too, but are of subclasses or carry a syscall; native ones are plain.
  if (typeof code !== 'string' || !code.startsWith('ERR_') || error.constructor !== Error) return error
  return new TunesmithError(code, error.message, { cause: error })
}
