/** The configuration file of `train` and `plan`, and `--set` on top of it. */
import { readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { LineCounter, parse, parseDocument } from 'yaml'
import { containerOf } from '../data/containers/names.ts'
import { TunesmithError } from '../errors.ts'
import { absolutePaths, isRecord } from '../trainer/option-paths.ts'
import type { TrainerOptions } from '../trainer/options.ts'
import { usage } from './command.ts'

/**
 * Options from the JSON or YAML file `path`, overridden by `sets` (`key=value`, dotted key, value in YAML; an empty
 * value takes the key away). Relative paths in the file start at its folder, those in `sets` at the working directory.
 * The result still has to be validated, which the Trainer does.
 *
 * @throws TunesmithError `ERR_CONFIG_READ`, `ERR_USAGE`
 */
export function loadConfig(path: string, sets: readonly string[]): TrainerOptions {
  const container = containerOf(path)
  if (container !== undefined && container !== 'json')
    throw new TunesmithError(
      'ERR_CONFIG_READ',
      `${path} is a data file, not a configuration: name it as data.train in a YAML or JSON file with model and output`,
    )
  const content = readConfig(path)
  if (!isRecord(content))
    throw new TunesmithError('ERR_CONFIG_READ', `${path} must hold an object with the keys model, output and data`)
  const file = absolutePaths(content, dirname(resolve(path))) as Record<string, unknown>
  const options = sets.reduce((config, set) => assign(config, set), file)
  return options as unknown as TrainerOptions
}

function readConfig(path: string): unknown {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    const why = code === 'ENOENT' ? 'does not exist' : code === 'EISDIR' ? 'is a folder' : `cannot be read (${code})`
    throw new TunesmithError('ERR_CONFIG_READ', `configuration file ${path} ${why}`, { cause })
  }
  const isJson = /\.json$/i.test(path)
  // YAML reads JSON too, with line numbers, and refuses a key that comes twice, where JSON.parse keeps the last.
  const lines = new LineCounter()
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false })
  const error = document.errors.find((e) => !isJson || e.code === 'DUPLICATE_KEY')
  if (error) {
    const { line, col } = lines.linePos(error.pos[0])
    throw new TunesmithError('ERR_CONFIG_READ', `${path}:${line}:${col}: ${error.message}`, { cause: error })
  }
  if (!isJson) return document.toJS()
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new TunesmithError('ERR_CONFIG_READ', `${path} is not valid JSON: ${(cause as Error).message}`, { cause })
  }
}

/** A copy of `config` with one `key=value` applied. */
function assign(config: Record<string, unknown>, set: string): Record<string, unknown> {
  const split = set.indexOf('=')
  const keys = set.slice(0, split).split('.')
  if (split < 1 || keys.some((key) => !/^\w+$/.test(key) || key === '__proto__'))
    throw usage(`--set takes key=value with a dotted key, such as data.train=train.jsonl; found '${set}'`)
  let value: unknown
  try {
    value = parse(set.slice(split + 1)) ?? undefined
  } catch (cause) {
    throw usage(`--set ${keys.join('.')}: the value is not valid YAML: ${(cause as Error).message.split('\n')[0]}`)
  }
  const patch = keys.reduceRight<unknown>((inner, key) => ({ [key]: inner }), value)
  return put(config, keys, absolutePaths(patch, process.cwd()))
}

/** Objects on the way keep their other keys; what is at the end replaces what was there. */
function put(config: Record<string, unknown>, keys: readonly string[], patch: unknown): Record<string, unknown> {
  const [key, ...further] = keys as [string, ...string[]]
  const { [key]: before, ...rest } = config
  const value = (patch as Record<string, unknown>)[key]
  if (value === undefined) return rest
  return { ...rest, [key]: further.length > 0 && isRecord(before) ? put(before, further, value) : value }
}
