/** `tunesmith generate CHECKPOINT --prompt TEXT` */
import { readFileSync } from 'node:fs'
import type { Message } from '../data/conversation.ts'
import { type Command, exitCode, onlyPositional, readArguments, type Streams, usage } from './command.ts'
import {
  generationArguments,
  generationHelp,
  generationOptions,
  loadArguments,
  loadHelp,
  loadOptions,
} from './generation-arguments.ts'
import { warningLine } from './progress-lines.ts'

const help = `usage: tunesmith generate CHECKPOINT --prompt TEXT [options]

Answers TEXT as the user's turn of a conversation, in the checkpoint's own chat template.

  CHECKPOINT              Hugging Face folder
  --prompt TEXT           what the user says; '-' reads it from stdin
  --raw                   continue TEXT itself, without a chat template
  --system TEXT           system message before it
  --tools FILE            JSON file with a list of tools, as chat APIs take them
${generationHelp}${loadHelp}  --json                  one JSON object at the end: text, tokens, finishReason, promptTokens, message
`

async function run(args: string[], { stdout, stderr }: Streams): Promise<number> {
  const { values, positionals } = readArguments(args, {
    prompt: { type: 'string' },
    raw: { type: 'boolean', default: false },
    system: { type: 'string' },
    tools: { type: 'string' },
    ...generationArguments,
    ...loadArguments,
    json: { type: 'boolean', default: false },
  })
  const folder = onlyPositional(positionals, 'CHECKPOINT')
  if (values.prompt === undefined) throw usage('--prompt is missing')
  for (const name of ['system', 'tools', 'chat-template'] as const)
    if (values.raw && values[name] !== undefined)
      throw usage(`--${name} needs a chat template, --raw uses none: give one`)
  const options = generationOptions(values)
  const where = loadOptions(values)
  const tools = values.tools === undefined ? {} : { tools: readToolsFile(values.tools) }
  const text = values.prompt === '-' ? readFileSync(0, 'utf8') : values.prompt
  const messages: Message[] = values.system === undefined ? [] : [{ role: 'system', content: values.system }]
  const prompt = values.raw ? text : [...messages, { role: 'user' as const, content: text }]

  const abort = new AbortController()
  const interrupt = () => abort.abort()
  process.once('SIGINT', interrupt)
  const { loadModel } = await import('../generate/index.ts')
  const model = await loadModel(folder, where)
  try {
    for (const warning of model.warnings)
      if (!values.raw || warning.code !== 'WARN_TEMPLATE_FALLBACK') stderr.write(`${warningLine(warning)}\n`)
    const onToken = values.json ? {} : { onToken: (piece: string) => void stdout.write(piece) }
    const { tokens, ...result } = await model.generate(prompt, {
      ...options,
      ...tools,
      ...onToken,
      signal: abort.signal,
    })
    stdout.write(values.json ? `${JSON.stringify({ ...result, tokens: [...tokens] })}\n` : '\n')
    return exitCode.ok
  } catch (error) {
    if (!abort.signal.aborted) throw error
    if (!values.json) stdout.write('\n')
    return exitCode.interrupted
  } finally {
    process.off('SIGINT', interrupt)
    model.close()
  }
}

function readToolsFile(path: string): unknown[] {
  let value: unknown
  try {
    value = JSON.parse(readFileSync(path, 'utf8'))
  } catch (error) {
    throw usage(`--tools: ${path} is no JSON file that can be read: ${(error as Error).message}`)
  }
  if (Array.isArray(value)) return value
  throw usage(`--tools: ${path} must hold a list of tools`)
}

export const generate: Command = { summary: 'complete a prompt with a checkpoint', help, run }
