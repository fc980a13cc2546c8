/** What the commands that generate have in common: sampling, and where to compute. */
import type { GenerateOptions, LoadModelOptions } from '../generate/index.ts'
import { usage } from './command.ts'

/** For readArguments(). */
export const generationArguments = {
  'max-new-tokens': { type: 'string' },
  temperature: { type: 'string' },
  'top-k': { type: 'string' },
  'top-p': { type: 'string' },
  'min-p': { type: 'string' },
  'repetition-penalty': { type: 'string' },
  stop: { type: 'string', multiple: true },
  seed: { type: 'string' },
} as const

export const loadArguments = {
  device: { type: 'string' },
  precision: { type: 'string' },
  threads: { type: 'string' },
  'max-context': { type: 'string' },
  'chat-template': { type: 'string' },
} as const

export const generationHelp = `  --max-new-tokens N      at most N tokens (default 256)
  --temperature T         0 takes the most likely token each time (default 0)
  --top-k K               sample among the K most likely tokens
  --top-p P               sample among the most likely tokens of total probability P
  --min-p P               sample among tokens at least P times as likely as the most likely one
  --repetition-penalty R  above 1: tokens that came before are less likely (default 1)
  --stop TEXT             end before TEXT; may be given several times
  --seed N                of the sampling (default 42)
`

export const loadHelp = `  --device NAME           auto, cpu, cuda or reference (default auto)
  --precision TYPE        float32 or bfloat16 (default: bfloat16 where the device is fast at it)
  --threads N             default: every core
  --max-context N         most tokens of prompt and answer together (default: the model's, at most 4096)
  --chat-template NAME    another than the model's own: a built-in one, or the path of a Jinja file
`

type Values<T extends Record<string, { type: 'string'; multiple?: boolean }>> = {
  [K in keyof T]?: T[K] extends { multiple: true } ? string[] : string
}

const whole = (least: number) => (value: number) => Number.isSafeInteger(value) && value >= least
const share = (value: number) => value >= 0 && value <= 1

/** @throws TunesmithError `ERR_USAGE` */
export function generationOptions(values: Values<typeof generationArguments>): GenerateOptions {
  const read = (name: Exclude<keyof typeof generationArguments, 'stop'>, accepts: (value: number) => boolean) =>
    optionalNumber(name, values[name], accepts)
  const options = {
    maxNewTokens: read('max-new-tokens', whole(1)),
    temperature: read('temperature', (n) => n >= 0),
    topK: read('top-k', whole(0)),
    topP: read('top-p', (n) => n > 0 && n <= 1),
    minP: read('min-p', share),
    repetitionPenalty: read('repetition-penalty', (n) => n > 0),
    seed: read('seed', whole(0)),
    stop: values.stop,
  }
  if (options.stop?.includes('')) throw usage("--stop does not take ''")
  for (const name of ['topK', 'topP', 'minP'] as const)
    if (options[name] !== undefined && !options.temperature)
      throw usage(`--${name.replace(/[KP]/, (letter) => `-${letter.toLowerCase()}`)} needs a --temperature above 0`)
  return options
}

/** @throws TunesmithError `ERR_USAGE` */
export function loadOptions(values: Values<typeof loadArguments>): LoadModelOptions {
  return {
    device: oneOf('device', values.device, ['auto', 'cpu', 'cuda', 'reference'] as const),
    precision: oneOf('precision', values.precision, ['auto', 'float32', 'bfloat16'] as const),
    threads: optionalNumber('threads', values.threads, whole(0)),
    maxContext: optionalNumber('max-context', values['max-context'], whole(1)),
    chatTemplate: values['chat-template'],
  }
}

/** @throws TunesmithError `ERR_USAGE` */
export function optionalNumber(
  name: string,
  text: string | undefined,
  accepts: (value: number) => boolean,
): number | undefined {
  if (text === undefined) return undefined
  const value = text.trim() === '' ? Number.NaN : Number(text)
  if (Number.isFinite(value) && accepts(value)) return value
  throw usage(`--${name} does not take '${text}'`)
}

function oneOf<const T extends string>(name: string, text: string | undefined, values: readonly T[]): T | undefined {
  const found = values.find((value) => value === text)
  if (text !== undefined && found === undefined) throw usage(`--${name} must be ${values.join(', ')}; found '${text}'`)
  return found
}
