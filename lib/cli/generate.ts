/** `tunesmith generate CHECKPOINT --prompt TEXT` */
import { readFileSync } from 'node:fs'
import type { Message } from '../data/conversation.ts'
import { type Command, exitCode, onlyPositional, readArguments, type Streams, usage } from './command.ts'
import { warningLine } from './progress-lines.ts'

const help = `usage: tunesmith generate CHECKPOINT --prompt TEXT [options]

Answers TEXT as the user's turn of a conversation, in the checkpoint's own chat template.

  CHECKPOINT              Hugging Face folder
  --prompt TEXT           what the user says; '-' reads it from stdin
  --raw                   continue TEXT itself, without a chat template
  --system TEXT           system message before it
  --max-new-tokens N      at most N tokens (default 256)
  --temperature T         0 takes the most likely token each time (default 0)
  --top-p P               sample among the most likely tokens of total probability P (default 1)
  --seed N                of the sampling (default 42)
  --device NAME           auto, cpu, cuda or reference (default auto)
  --precision TYPE        float32 or bfloat16 (default: bfloat16 where the device is fast at it)
  --threads N             default: every core
  --json                  one JSON object at the end: text, tokens, finishReason, promptTokens
`

async function run(args: string[], { stdout, stderr }: Streams): Promise<number> {
  const { values, positionals } = readArguments(args, {
    prompt: { type: 'string' },
    raw: { type: 'boolean', default: false },
    system: { type: 'string' },
    'max-new-tokens': { type: 'string', default: '256' },
    temperature: { type: 'string', default: '0' },
    'top-p': { type: 'string', default: '1' },
    seed: { type: 'string', default: '42' },
    device: { type: 'string', default: 'auto' },
    precision: { type: 'string', default: 'auto' },
    threads: { type: 'string', default: '0' },
    json: { type: 'boolean', default: false },
  })
  const folder = onlyPositional(positionals, 'CHECKPOINT')
  if (values.prompt === undefined) throw usage('--prompt is missing')
  if (values.raw && values.system !== undefined)
    throw usage('--system needs a chat template, --raw uses none: give one')
  const sampling = {
    maxNewTokens: numberOf('max-new-tokens', values['max-new-tokens'], (n) => Number.isSafeInteger(n) && n > 0),
    temperature: numberOf('temperature', values.temperature, (n) => n >= 0),
    topP: numberOf('top-p', values['top-p'], (n) => n > 0 && n <= 1),
    seed: numberOf('seed', values.seed, (n) => Number.isSafeInteger(n) && n >= 0),
  }
  const where = {
    device: oneOf('device', values.device, ['auto', 'cpu', 'cuda', 'reference'] as const),
    precision: oneOf('precision', values.precision, ['auto', 'float32', 'bfloat16'] as const),
    threads: numberOf('threads', values.threads, (n) => Number.isSafeInteger(n) && n >= 0),
  }
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
    const { tokens, ...result } = await model.generate(prompt, { ...sampling, ...onToken, signal: abort.signal })
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

function numberOf(name: string, text: string, accepts: (value: number) => boolean): number {
  const value = text.trim() === '' ? Number.NaN : Number(text)
  if (Number.isFinite(value) && accepts(value)) return value
  throw usage(`--${name} does not take '${text}'`)
}

function oneOf<const T extends string>(name: string, text: string, values: readonly T[]): T {
  const found = values.find((value) => value === text)
  if (found === undefined) throw usage(`--${name} must be ${values.join(', ')}; found '${text}'`)
  return found
}

export const generate: Command = { summary: 'complete a prompt with a checkpoint', help, run }
