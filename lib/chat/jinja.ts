/**
 * Jinja as Transformers runs it for chat templates. The engine is @huggingface/jinja; where it departs from Python in
 * ways that change a rendering, the parsed template is amended here instead of the text that comes out.
 */
import { Environment, Interpreter, parse, tokenize } from '@huggingface/jinja'

/** Noncharacters that mark the ends of a `{% generation %}` block; Unicode keeps them for such internal use. */
export const BLOCK_START = '\ufdd0'
export const BLOCK_END = '\ufdd1'

const GENERATION_TAG = /{%(-?)\s*(end)?generation\s*(-?)%}/g

/** A parsed template. Rendering is a pure function of the variables. */
export class JinjaTemplate {
  readonly #program: ReturnType<typeof parse>

  /** @throws Error with the engine's words where `source` does not parse. */
  constructor(source: string) {
    // Jinja reads every kind of line end as a newline.
    const tokens = tokenize(source.replace(/\r\n?/g, '\n'), { trim_blocks: true, lstrip_blocks: true })
    this.#program = parse(tokens)
    pythonStrip(this.#program)
  }

  /** @throws Error whose message is what the template gave to raise_exception, or the engine's. */
  render(variables: Record<string, unknown>, now: Date): string {
    const environment = new Environment()
    const globals = {
      true: true,
      false: false,
      none: null,
      True: true,
      False: false,
      None: null,
      range,
      raise_exception: (message: string) => {
        throw new Error(message)
      },
      strftime_now: (format: string) => strftime(now, format),
      [STRIP.strip]: (text: unknown, characters?: unknown) => strip(text, characters, true, true),
      [STRIP.lstrip]: (text: unknown, characters?: unknown) => strip(text, characters, true, false),
      [STRIP.rstrip]: (text: unknown, characters?: unknown) => strip(text, characters, false, true),
    }
    for (const [name, value] of Object.entries({ ...globals, ...variables })) environment.set(name, value)
    return String(new StrictInterpreter(environment).run(this.#program).value)
  }
}

/** The engine's nodes and values, as far as they are used here: its own types do not resolve under nodenext. */
interface Statement {
  type: string
  [key: string]: unknown
}
interface Value {
  type: string
  value: unknown
}
interface Engine {
  evaluate(statement: Statement | undefined, environment: unknown): Value
  run(program: unknown): Value
}
const BaseInterpreter = Interpreter as unknown as new (environment: unknown) => Engine

/**
 * The engine adds text to anything and writes "[object Map]" where Python raises TypeError. A chat template that meets
 * arguments of a kind it was not written for must refuse them, not put such text into training.
 */
class StrictInterpreter extends BaseInterpreter {
  override evaluate(statement: Statement | undefined, environment: unknown): Value {
    if (statement?.type === 'Evaluated') return statement.value as Value
    const operator = statement?.operator as { value: string } | undefined
    if (statement?.type !== 'BinaryExpression' || operator?.value !== '+') return super.evaluate(statement, environment)
    const left = this.evaluate(statement.left as Statement, environment)
    const right = this.evaluate(statement.right as Statement, environment)
    const texts = Number(left.type === 'StringValue') + Number(right.type === 'StringValue')
    if (texts === 1) throw new Error(`cannot add ${pythonType(left)} and ${pythonType(right)}`)
    if (texts === 2) return Reflect.construct(left.constructor, [`${left.value}${right.value}`])
    const sides = { left: { type: 'Evaluated', value: left }, right: { type: 'Evaluated', value: right } }
    return super.evaluate(Object.assign(Object.create(Object.getPrototypeOf(statement)), statement, sides), environment)
  }
}

function pythonType({ type }: Value): string {
  const names: Record<string, string> = {
    StringValue: 'text',
    ObjectValue: 'an object',
    ArrayValue: 'a list',
    NullValue: 'null',
  }
  return names[type] ?? type.replace('Value', '').toLowerCase()
}

/** Whether a template says itself what the assistant generates. */
export function hasGenerationTags(source: string): boolean {
  return source.search(GENERATION_TAG) >= 0
}

/**
 * The same template with its generation tags as output of BLOCK_START and BLOCK_END: the engine would drop them. A tag
 * becomes a whole block statement, so that whitespace control (`-`, trim_blocks, lstrip_blocks) treats it as before.
 */
export function markGenerationTags(source: string): string {
  return source.replace(
    GENERATION_TAG,
    (_, before: string, end: string | undefined, after: string) =>
      `{%${before} if true %}{{ "${end ? BLOCK_END : BLOCK_START}" }}{% endif ${after}%}`,
  )
}

const STRIP = { strip: '__strip', lstrip: '__lstrip', rstrip: '__rstrip' } as const

/**
 * The engine's strip, lstrip, rstrip and `| trim` ignore their argument and strip what JavaScript calls whitespace.
 * Qwen3 strips newlines only, so a reply that starts with spaces would be trained without them. Calls are redirected to
 * functions with Python's meaning.
 */
function pythonStrip(root: unknown): void {
  const seen = new Set<unknown>()
  const stack = [root]
  while (stack.length > 0) {
    const node = stack.pop()
    if (typeof node !== 'object' || node === null || seen.has(node)) continue
    seen.add(node)
    if (node instanceof Map) for (const [key, value] of node) stack.push(key, value)
    redirect(node as Statement)
    for (const child of Object.values(node)) stack.push(child)
  }
}

function redirect(node: Statement): void {
  if (node.type === 'CallExpression') {
    const callee = node.callee as Statement
    const property = callee.property as Statement | undefined
    const name = callee.type === 'MemberExpression' && !callee.computed ? STRIP[property?.value as 'strip'] : undefined
    if (name === undefined) return
    node.args = [callee.object, ...(node.args as unknown[])]
    node.callee = identifier(name, property!)
  } else if (node.type === 'FilterExpression') {
    const filter = node.filter as Statement
    const named = (filter.type === 'CallExpression' ? filter.callee : filter) as Statement
    if (named.value !== 'trim') return
    node.type = 'CallExpression'
    node.args = [node.operand, ...((filter.args as unknown[] | undefined) ?? [])]
    node.callee = identifier(STRIP.strip, named)
  }
}

function identifier(name: string, like: Statement): Statement {
  return Object.assign(Object.create(Object.getPrototypeOf(like)), like, { value: name })
}

/** Python's str.isspace: Unicode's white space and the four separators U+001C to U+001F, but not U+FEFF as in trim(). */
function isPythonSpace(character: string): boolean {
  return /\p{White_Space}/u.test(character) || (character >= '\x1c' && character <= '\x1f')
}

function strip(text: unknown, characters: unknown, left: boolean, right: boolean): string {
  if (typeof text !== 'string') throw new Error(`strip needs text, got ${text === null ? 'none' : typeof text}`)
  const strips = typeof characters === 'string' ? (c: string) => characters.includes(c) : isPythonSpace
  let start = 0
  let end = text.length
  while (left && start < end && strips(text[start]!)) start++
  while (right && end > start && strips(text[end - 1]!)) end--
  return text.slice(start, end)
}

function range(start: number, stop?: number, step = 1): number[] {
  const [from, to] = stop === undefined ? [0, start] : [start, stop]
  if (step === 0) throw new Error('range() step must not be zero')
  const length = Math.max(0, Math.ceil((to - from) / step))
  if (length > 1e6) throw new Error(`range() of ${length} numbers in a chat template`)
  return Array.from({ length }, (_, i) => from + i * step)
}

const MONTHS = 'January February March April May June July August September October November December'.split(' ')
const DAYS = 'Sunday Monday Tuesday Wednesday Thursday Friday Saturday'.split(' ')

/** Python's strftime in the C locale, local time, for the directives that make sense in a prompt. */
export function strftime(date: Date, format: string): string {
  const two = (value: number) => String(value).padStart(2, '0')
  const hour12 = date.getHours() % 12 || 12
  const startOfYear = new Date(date.getFullYear(), 0, 0)
  const dayOfYear = Math.round(
    (Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) -
      Date.UTC(startOfYear.getFullYear(), startOfYear.getMonth(), startOfYear.getDate())) /
      86_400_000,
  )
  const values: Record<string, () => string> = {
    Y: () => String(date.getFullYear()),
    y: () => two(date.getFullYear() % 100),
    m: () => two(date.getMonth() + 1),
    d: () => two(date.getDate()),
    e: () => String(date.getDate()).padStart(2, ' '),
    H: () => two(date.getHours()),
    I: () => two(hour12),
    M: () => two(date.getMinutes()),
    S: () => two(date.getSeconds()),
    p: () => (date.getHours() < 12 ? 'AM' : 'PM'),
    B: () => MONTHS[date.getMonth()]!,
    b: () => MONTHS[date.getMonth()]!.slice(0, 3),
    A: () => DAYS[date.getDay()]!,
    a: () => DAYS[date.getDay()]!.slice(0, 3),
    j: () => String(dayOfYear).padStart(3, '0'),
    F: () => strftime(date, '%Y-%m-%d'),
    T: () => strftime(date, '%H:%M:%S'),
    '%': () => '%',
  }
  return format.replace(/%(-?)(.)/gs, (directive, dash: string, letter: string) => {
    const value = values[letter]
    if (!value) throw new Error(`strftime_now: unknown directive ${directive}`)
    return dash ? value().replace(/^[0 ]+(?=.)/, '') : value()
  })
}
