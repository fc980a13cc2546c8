/** What a terminal can show. */
import type { Output } from './command.ts'

/** https://no-color.org: NO_COLOR counts when it is set and not empty, whatever the value. */
export function hasColors(stdout: Output): boolean {
  return stdout.isTTY === true && !process.env.NO_COLOR && process.env.TERM !== 'dumb'
}
