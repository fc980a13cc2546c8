/**
 * Variables of a run for its template (`enable_thinking` and the like), written into the template itself as defaults.
 * The template that is exported then renders as training did wherever it is used, and a caller who passes a variable
 * still has the last word.
 */
import { TunesmithError } from '../errors.ts'
import { GLOBAL_NAMES } from './jinja/globals.ts'
import { settableNames } from './jinja/names.ts'
import { parseTemplate } from './jinja/source.ts'

/** Names that rendering sets itself. */
const RESERVED = [
  'messages',
  'tools',
  'documents',
  'add_generation_prompt',
  'bos_token',
  'eos_token',
  'pad_token',
  'unk_token',
]
const CONSTANTS = ['true', 'false', 'none', 'True', 'False', 'None', 'and', 'or', 'not', 'if', 'else', 'in', 'is']

/** Names that a caller can set in templates: those they read, beside what rendering sets and what they assign themselves. */
export function readVariables(sources: readonly string[]): string[] {
  const own = [...RESERVED, ...GLOBAL_NAMES]
  const names = sources.flatMap((source) => [...settableNames(parseTemplate(source))])
  return [...new Set(names)].filter((name) => !own.includes(name))
}

/**
 * @param variables JSON values by name
 * @throws TunesmithError `ERR_INVALID_OPTION` for a name or a value that cannot be written into a template
 */
export function withDefaults(source: string, variables: Record<string, unknown>): string {
  const lines = Object.entries(variables).map(([name, value]) => {
    if (!/^[A-Za-z_]\w*$/.test(name) || RESERVED.includes(name) || CONSTANTS.includes(name)) {
      const reason = RESERVED.includes(name) ? 'is set by rendering itself' : 'is no name of a variable'
      throw new TunesmithError('ERR_INVALID_OPTION', `templateVariables: ${JSON.stringify(name)} ${reason}`)
    }
    // The newline after a block is not rendered.
    return `{% if ${name} is not defined %}{% set ${name} = ${literal(value, `templateVariables.${name}`)} %}{% endif %}\n`
  })
  return lines.join('') + source
}

function literal(value: unknown, field: string): string {
  if (value === null) return 'none'
  if (typeof value === 'boolean') return String(value)
  if (typeof value === 'string') return quoted(value)
  if (typeof value === 'number' && Number.isFinite(value) && !/e/.test(String(value))) return String(value)
  if (Array.isArray(value)) return `[${value.map((item, index) => literal(item, `${field}[${index}]`)).join(', ')}]`
  if (typeof value === 'object' && Object.getPrototypeOf(value) === Object.prototype) {
    const members = Object.entries(value).map(([key, item]) => `${quoted(key)}: ${literal(item, `${field}.${key}`)}`)
    return `{${members.join(', ')}}`
  }
  const found = typeof value === 'number' ? String(value) : `a ${typeof value}`
  throw new TunesmithError(
    'ERR_INVALID_OPTION',
    `${field}: expected a JSON value (numbers without exponent), found ${found}`,
  )
}

/** Escapes that Jinja and JSON share; braces and percent signs cannot end the block from inside a string. */
function quoted(text: string): string {
  return JSON.stringify(text).replace(/[{}%#]/g, (character) => `\\u00${character.charCodeAt(0).toString(16)}`)
}
