/** `tunesmith chat CHECKPOINT` */
import { basename, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import type { Model } from '../generate/index.ts'
import { ChatSession, chatHelp, type Display, type Speaker } from './chat-session.ts'
import { type Command, exitCode, onlyPositional, readArguments, type Streams } from './command.ts'
import {
  generationArguments,
  generationHelp,
  generationOptions,
  loadArguments,
  loadHelp,
  loadOptions,
} from './generation-arguments.ts'
import { warningLine } from './progress-lines.ts'
import { hasColors } from './terminal.ts'

const help = `usage: tunesmith chat CHECKPOINT [--compare BASE] [options]

Talks with a checkpoint in its own chat template. In a pipe every line is a turn, and only answers go to stdout.

  CHECKPOINT              Hugging Face folder
  --compare BASE          lets another checkpoint answer before it, each in a conversation of its own
  --system TEXT           system message
${generationHelp}${loadHelp}
${chatHelp}
`

async function run(args: string[], { stdout, stderr }: Streams): Promise<number> {
  const { values, positionals } = readArguments(args, {
    compare: { type: 'string' },
    system: { type: 'string' },
    ...generationArguments,
    ...loadArguments,
  })
  const folder = onlyPositional(positionals, 'CHECKPOINT')
  const options = generationOptions(values)
  const where = loadOptions(values)
  const folders = values.compare === undefined ? [folder] : [values.compare, folder]
  const terminal = process.stdin.isTTY === true && stdout.isTTY === true
  const models: Model[] = []
  let code: number = exitCode.ok
  try {
    const { loadModel } = await import('../generate/index.ts')
    for (const path of folders) {
      const model = await loadModel(path, where)
      models.push(model)
      for (const warning of model.warnings) stderr.write(`${warningLine(warning)}\n`)
    }
    const names = namesOf(folders)
    const speakers = models.map(
      (model, index): Speaker => ({
        name: names[index]!,
        stream: (messages, signal) => model.stream(messages, { ...options, signal }),
      }),
    )
    const session = new ChatSession(speakers, display({ stdout, stderr }, terminal), values.system)
    if (terminal) stdout.write('/help lists what can be done besides talking\n')

    const lines = createInterface({ input: process.stdin, ...(terminal && { output: process.stdout }), terminal })
    const interrupt = () => {
      const next = session.interrupt()
      if (next === 'ask again' && terminal) lines.prompt()
      if (next !== 'leave') return
      code = exitCode.interrupted
      lines.close()
    }
    // On a terminal readline reads the key itself; elsewhere it comes as a signal.
    lines.on('SIGINT', interrupt)
    process.on('SIGINT', interrupt)
    try {
      if (terminal) lines.prompt()
      for await (const line of lines) {
        if (await session.take(line)) break
        if (code !== exitCode.ok) break
        if (terminal) lines.prompt()
      }
    } finally {
      process.off('SIGINT', interrupt)
      lines.close()
    }
  } finally {
    for (const model of models) model.close()
  }
  return code
}

/** Answers on stdout, everything else on stderr; on a terminal dimmed. */
function display({ stdout, stderr }: Streams, terminal: boolean): Display {
  const dim = (text: string) => (terminal && hasColors(stdout) ? `\u001b[2m${text}\u001b[0m` : text)
  return {
    heading: (name) => stdout.write(`${dim(`${name}:`)}\n`),
    piece: (text) => stdout.write(text),
    end: () => stdout.write('\n'),
    note: (text) => stderr.write(`${dim(text)}\n`),
  }
}

/** The last part of each path, where these differ. */
function namesOf(folders: readonly string[]): string[] {
  const short = folders.map((folder) => basename(resolve(folder)))
  return new Set(short).size === short.length ? short : [...folders]
}

export const chat: Command = { summary: 'talk with a checkpoint, or with two side by side', help, run }
