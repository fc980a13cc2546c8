/**
 * How a chat template writes tool calls, so that those a model writes can be read back. Found by rendering a call, never
 * from what a model happens to say: a template without calls has no format. Formats that are not JSON have none either.
 */
import type { Message, ToolCall } from '../data/conversation.ts'
import { parseExactJson } from '../data/exact-json.ts'
import { JinjaTemplate } from './jinja.ts'
import type { ChatTemplate } from './template.ts'

/** Calls as JSON objects, one after each `open`, or a list of them after one. */
export interface CallFormat {
  /** What stands before, without white space: `<tool_call>` (Hermes, Qwen), `[TOOL_CALLS]` (Mistral); '' for nothing (Llama 3). */
  open: string
  /** What stands behind, without white space; '' for nothing. */
  close: string
  /** `arguments`, or `parameters` (Llama 3). */
  argumentsKey: string
  /** The template wants the arguments of its messages as JSON text, not as objects. */
  argumentsAsText: boolean
}

/** What a model said, taken apart. */
export interface ParsedCalls {
  /** What stands outside the calls; null where there is nothing. */
  content: string | null
  calls: ToolCall[]
}

/** JSON as templates write it, numbers as they were spelt. */
const TO_JSON = new JinjaTemplate('{{ value | tojson }}', new Date(0))
const NAME = 'zwei_vier'
const KEY = 'acht'
const VALUE = 'Zehn'
const REPLY = 'Vier'
const USER: Message = { role: 'user', content: 'Sprich' }
const TOOL = {
  type: 'function',
  function: {
    name: NAME,
    description: 'Zwei',
    parameters: { type: 'object', properties: { [KEY]: { type: 'string', description: 'Vier' } }, required: [KEY] },
  },
}

/** The format of `template`; undefined where it writes no calls, or not as JSON objects with a name and arguments. */
export function callFormat(template: ChatTemplate): CallFormat | undefined {
  const opening = turnOpening(template)
  for (const argumentsAsText of [false, true])
    for (const content of ['', null]) {
      const given = { [KEY]: VALUE }
      const turn = renderCall(template, argumentsAsText ? JSON.stringify(given) : given, content)
      const format = turn === undefined ? undefined : formatOf(without(opening, turn), template)
      if (format) return { ...format, argumentsAsText }
    }
  return undefined
}

function without(opening: string, turn: string): string {
  return turn.startsWith(opening) ? turn.slice(opening.length) : turn
}

/** What every assistant turn begins with, such as Qwen3's empty `<think>` block. */
function turnOpening(template: ChatTemplate): string {
  const turn = renderTurn(template, { content: REPLY })
  return turn?.slice(0, Math.max(0, turn.indexOf(REPLY))) ?? ''
}

function renderCall(template: ChatTemplate, given: unknown, content: string | null): string | undefined {
  // Nine letters and digits, which is what Mistral's templates ask for.
  const call = { id: 'abcdefgh1', type: 'function', function: { name: NAME, arguments: given } }
  return renderTurn(template, { content, tool_calls: [call] })
}

/** The text of an assistant turn, from where a model would begin to write. */
function renderTurn(template: ChatTemplate, turn: Omit<Message, 'role'>): string | undefined {
  try {
    const prompt = template.render([USER], { tools: [TOOL], addGenerationPrompt: true })
    const text = template.render([USER, { role: 'assistant', ...turn }], { tools: [TOOL] })
    return text.startsWith(prompt) ? text.slice(prompt.length) : undefined
  } catch {
    return undefined
  }
}

function formatOf(turn: string, template: ChatTemplate): Omit<CallFormat, 'argumentsAsText'> | undefined {
  const name = turn.indexOf(NAME)
  for (let start = 0; start < name; start++) {
    const end = jsonEnd(turn, start)
    if (end === undefined || end < name) continue
    const entry = parsed(turn.slice(start, end))
    const call: unknown = Array.isArray(entry) ? entry[0] : entry
    const argumentsKey = argumentsKeyOf(call)
    if (argumentsKey === undefined) continue
    const behind = turn.slice(end)
    const stops = template.stopTokens.map(({ text }) => behind.indexOf(text)).filter((at) => at >= 0)
    return {
      open: turn.slice(0, start).trim(),
      close: behind.slice(0, Math.min(behind.length, ...stops)).trim(),
      argumentsKey,
    }
  }
  return undefined
}

function argumentsKeyOf(call: unknown): string | undefined {
  if (!isObject(call) || call.name !== NAME) return undefined
  return ['arguments', 'parameters'].find((key) => JSON.stringify(call[key])?.includes(VALUE))
}

/**
 * The calls in `text`, what a model wrote without its stop token, control tokens included. Undefined where there are none,
 * or where they are malformed: then the text is what was said, and nothing is repaired.
 *
 * @param tools as the template got them. Without an opening text only the names in them make an object a call
 * @param first number of the first call: those without an id of their own are `call00000`, `call00001`, ...
 */
export function parseCalls(
  format: CallFormat,
  text: string,
  tools: readonly unknown[] = [],
  first = 0,
): ParsedCalls | undefined {
  const { open, close } = format
  const begin = open === '' ? 0 : text.indexOf(open)
  if (begin < 0) return undefined
  const spoken = [text.slice(0, begin)]
  const calls: ToolCall[] = []
  let at = begin
  while (at < text.length) {
    const start = skipSpace(text, at + open.length)
    const end = jsonEnd(text, start)
    if (end === undefined) return undefined
    const entry = parsed(text.slice(start, end))
    for (const value of Array.isArray(entry) ? entry : [entry]) {
      const call = toolCall(value, format, first + calls.length)
      if (call === undefined) return undefined
      calls.push(call)
    }
    const closing = skipSpace(text, end)
    const rest = close !== '' && text.startsWith(close, closing) ? closing + close.length : end
    if (open === '') {
      const known = toolNames(tools)
      const whole = text.slice(rest).trim() === '' && calls.every((call) => known.has(call.function.name))
      return whole && calls.length > 0 ? { content: null, calls } : undefined
    }
    at = text.indexOf(open, rest)
    spoken.push(text.slice(rest, at < 0 ? text.length : at))
    if (at < 0) break
  }
  const content = spoken.join('').trim()
  return calls.length === 0 ? undefined : { content: content === '' ? null : content, calls }
}

function toolCall(value: unknown, { argumentsKey, argumentsAsText }: CallFormat, number: number): ToolCall | undefined {
  if (!isObject(value) || typeof value.name !== 'string') return undefined
  const given = value[argumentsKey]
  // Some models write the arguments as JSON text, as chat APIs have them.
  const args = typeof given === 'string' ? parsed(given) : given
  if (!isObject(args)) return undefined
  const id = typeof value.id === 'string' ? value.id : `call${String(number).padStart(5, '0')}`
  const written = argumentsAsText ? TO_JSON.render({ value: args }, false) : args
  return { id, type: 'function', function: { name: value.name, arguments: written } }
}

function toolNames(tools: readonly unknown[]): Set<unknown> {
  return new Set(
    tools.map((tool) => (isObject(tool) ? (isObject(tool.function) ? tool.function.name : tool.name) : undefined)),
  )
}

/** Where the JSON object or list that starts at `start` ends; undefined where none does. Brackets only: not validated. */
function jsonEnd(text: string, start: number): number | undefined {
  if (text[start] !== '{' && text[start] !== '[') return undefined
  let depth = 0
  let inString = false
  for (let at = start; at < text.length; at++) {
    const character = text[at]!
    if (inString) {
      if (character === '\\') at++
      else if (character === '"') inString = false
    } else if (character === '"') inString = true
    else if (character === '{' || character === '[') depth++
    else if ((character === '}' || character === ']') && --depth === 0) return at + 1
  }
  return undefined
}

function parsed(json: string): unknown {
  try {
    return parseExactJson(json)
  } catch {
    return undefined
  }
}

function skipSpace(text: string, at: number): number {
  while (at < text.length && /\s/.test(text[at]!)) at++
  return at
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
