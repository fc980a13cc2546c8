/** What the commands share: their shape, their streams, and reading their arguments. */
import { type ParseArgsConfig, parseArgs } from 'node:util'
import { TunesmithError } from '../errors.ts'

/** A terminal or a pipe. */
export interface Output {
  write(text: string): unknown
  isTTY?: boolean
  /** Width of the terminal. */
  columns?: number
}

export interface Streams {
  stdout: Output
  stderr: Output
}

/** Exit codes: the command did its work, failed, or was not understood. 128 + n: ended by signal n. */
export const exitCode = { ok: 0, failed: 1, usage: 2, interrupted: 130, terminated: 143 } as const

export interface Command {
  /** One line for the list of commands. */
  summary: string
  /** The whole `--help` text. */
  help: string
  /** Returns the exit code. */
  run(args: string[], streams: Streams): Promise<number>
}

type Options = NonNullable<ParseArgsConfig['options']>
type Arguments<T extends Options> = ReturnType<
  typeof parseArgs<{ args: string[]; options: T; allowPositionals: true; strict: true }>
>

/** Arguments of one command, strictly. @throws TunesmithError `ERR_USAGE` */
export function readArguments<T extends Options>(args: string[], options: T): Arguments<T> {
  try {
    return parseArgs({ args, options, allowPositionals: true, strict: true })
  } catch (error) {
    // Node's message is right but ends in advice on '--' that confuses more than it helps.
    throw usage((error as Error).message.split('. ')[0]!.replace(/\.$/, ''))
  }
}

/** The only positional argument, called `name` in messages. @throws TunesmithError `ERR_USAGE` */
export function onlyPositional(positionals: readonly string[], name: string): string {
  const [first, second] = positionals
  if (first === undefined) throw usage(`${name} is missing`)
  if (second !== undefined) throw usage(`one ${name} is expected, found also '${second}'`)
  return first
}

export function usage(message: string): TunesmithError {
  return new TunesmithError('ERR_USAGE', message)
}
