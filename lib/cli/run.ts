/** Finds the command, runs it, and turns whatever it throws into one readable message and an exit code. */
import { closest } from '../trainer/option-names.ts'
import { chat } from './chat.ts'
import { type Command, exitCode, type Streams, usage } from './command.ts'
import { doctor } from './doctor.ts'
import { exportCommand } from './export.ts'
import { generate } from './generate.ts'
import { logprobs } from './logprobs.ts'
import { plan } from './plan.ts'
import { preview } from './preview.ts'
import { train } from './train.ts'
import { version } from './version.ts'

const commands: Record<string, Command> = {
  train,
  plan,
  preview,
  generate,
  chat,
  logprobs,
  export: exportCommand,
  doctor,
}

const help = `tunesmith: supervised fine-tuning of causal language models

usage: tunesmith COMMAND [arguments]

${Object.entries(commands)
  .map(([name, { summary }]) => `  ${name.padEnd(10)} ${summary}`)
  .join('\n')}

  tunesmith COMMAND --help   what a command takes
  tunesmith --version        the version

Exit codes: 0 done, 1 failed, 2 wrong arguments, 130 interrupted.
TUNESMITH_DEBUG=1 prints the stack of an error.
`

/** Runs the command line `args` (without node and script) and returns the exit code. */
export async function run(args: readonly string[], streams: Streams): Promise<number> {
  const [name, ...rest] = args
  try {
    if (name === '--version' || name === '-v') {
      streams.stdout.write(`${version()}\n`)
      return exitCode.ok
    }
    if (name === '--help' || name === '-h' || name === 'help') {
      streams.stdout.write(help)
      return exitCode.ok
    }
    if (name === undefined) throw usage('a command is missing')
    const command = Object.hasOwn(commands, name) ? commands[name]! : unknownCommand(name)
    if (rest.includes('--help') || rest.includes('-h')) {
      streams.stdout.write(command.help)
      return exitCode.ok
    }
    return await command.run(rest, streams)
  } catch (error) {
    return report(error, name, streams)
  }
}

function unknownCommand(name: string): never {
  const hint = closest(name, Object.keys(commands))
  throw usage(`no command '${name}'${hint ? `; did you mean '${hint}'?` : ''}`)
}

function report(error: unknown, command: string | undefined, { stderr }: Streams): number {
  const { message, code, stack } = error instanceof Error ? (error as NodeJS.ErrnoException) : { message: `${error}` }
  const ours = error instanceof Error && error.name === 'TunesmithError'
  stderr.write(`error: ${message}${code ? ` [${code}]` : ''}\n`)
  const misused = code === 'ERR_USAGE'
  if (misused) stderr.write(`See tunesmith ${command && command in commands ? `${command} ` : ''}--help\n`)
  if (process.env.TUNESMITH_DEBUG === '1') printStack(error, stderr)
  // Ours say all there is to say; anything else is a fault, and the stack tells where.
  else if (!ours && stack) stderr.write('TUNESMITH_DEBUG=1 prints the stack\n')
  return misused ? exitCode.usage : exitCode.failed
}

function printStack(error: unknown, stderr: Streams['stderr']): void {
  for (let current = error; current instanceof Error; current = current.cause) stderr.write(`${current.stack}\n`)
}
