/**
 * What JSON.parse forgets: 1.0 becomes 1, digits beyond 2^53 are lost, and keys that look like numbers move to the front.
 * Python keeps all three, and a chat template writes them into tool calls. A row where it matters is parsed here; what
 * JavaScript's own values cannot hold is noted beside them, under symbols that nothing else looks at.
 */

/** On an object or list: the numbers in it as they were spelt, where JavaScript's number would be written differently. */
export const NUMBERS = Symbol('numbers as spelt')
/** On an object: its keys in the order of the file, where JavaScript has another. */
export const KEY_ORDER = Symbol('order of keys')

type Container = Record<string | number | symbol, unknown>

interface Notes {
  [NUMBERS]?: Record<string, string>
  [KEY_ORDER]?: string[]
}

/** Numbers with a fraction, an exponent or many digits, or keys of digits only. Found in text too: that costs time only. */
const LOSSY = /[[:,\s]-?\d+(?:\.\d*0|\.\d{15,}|(?:\.\d+)?[eE]|\d{15,}|\.0)|"\d+"\s*:|"\\u003\d/

/**
 * JSON.parse, with notes where the text says more.
 *
 * @throws SyntaxError as JSON.parse
 */
export function parseExactJson(text: string): unknown {
  const value: unknown = JSON.parse(text)
  if (LOSSY.test(text)) annotate(value, text)
  return value
}

/** JSON.stringify, with what the notes say: numbers as they were spelt, keys in their order. 64-bit integers are numbers. */
export function exactJson(value: unknown): string {
  if (typeof value === 'bigint') return String(value)
  if (typeof value !== 'object' || value === null || 'toJSON' in value) return JSON.stringify(value) ?? 'null'
  const spelt = (value as Notes)[NUMBERS]
  const entry = (key: string | number) => spelt?.[key] ?? exactJson((value as Container)[key])
  if (ArrayBuffer.isView(value)) return `[${Array.from(value as unknown as ArrayLike<number>, exactJson).join(',')}]`
  if (Array.isArray(value)) return `[${value.map((_, index) => entry(index)).join(',')}]`
  const keys = orderedKeys(value).filter((key) => (value as Container)[key] !== undefined)
  return `{${keys.map((key) => `${JSON.stringify(key)}:${entry(key)}`).join(',')}}`
}

/** The keys of an object in the order of its file. */
export function orderedKeys(object: object): string[] {
  return (object as { [KEY_ORDER]?: string[] })[KEY_ORDER] ?? Object.keys(object)
}

/** Walks valid JSON text beside its value. Iterative: nesting cannot overflow the stack. */
function annotate(root: unknown, text: string): void {
  const stack: { value: Container; isList: boolean; keys: Set<string>; key: string | number }[] = []
  let at = 0
  let next: unknown = root
  for (;;) {
    at = skipSpace(text, at)
    const character = text[at]!
    if (character === '{' || character === '[') {
      // Of a key that comes twice the value is the last one's, which may be no container.
      const value = (typeof next === 'object' && next !== null ? next : {}) as Container
      stack.push({ value, isList: character === '[', keys: new Set(), key: -1 })
      at = skipSpace(text, at + 1)
      if (text[at] !== '}' && text[at] !== ']') {
        ;[at, next] = enter(stack.at(-1)!, text, at)
        continue
      }
    } else if (character === '"') {
      at = stringEnd(text, at)
    } else {
      const end = literalEnd(text, at)
      const top = stack.at(-1)
      if (top) noteNumber(top.value, top.key, text.slice(at, end))
      at = end
    }
    // After a value: the next one of its container, or the end of one container or several.
    for (;;) {
      const top = stack.at(-1)
      if (!top) return
      at = skipSpace(text, at)
      if (text[at] === ',') {
        ;[at, next] = enter(top, text, skipSpace(text, at + 1))
        break
      }
      if (!top.isList) noteOrder(top.value, [...top.keys])
      stack.pop()
      at++
    }
  }
}

/** Moves to the next value of a container: past its key in an object. */
function enter(
  top: { value: Container; isList: boolean; keys: Set<string>; key: string | number },
  text: string,
  at: number,
): [at: number, next: unknown] {
  if (top.isList) {
    top.key = (top.key as number) + 1
    return [at, top.value[top.key]]
  }
  const end = stringEnd(text, at)
  const key: string = JSON.parse(text.slice(at, end))
  top.key = key
  // A repeated key keeps its first place and takes its last value, in Python as here.
  top.keys.add(key)
  const colon = skipSpace(text, end)
  return [colon + 1, Object.hasOwn(top.value, key) ? top.value[key] : undefined]
}

function noteNumber(container: Container, key: string | number, spelt: string): void {
  const first = spelt[0]!
  const notes = container[NUMBERS] as Record<string, string> | undefined
  if (notes) delete notes[key]
  if (first !== '-' && (first < '0' || first > '9')) return
  const value = Number(spelt)
  const isFloat = /[.eE]/.test(spelt)
  if (!Number.isInteger(value) || (!isFloat && Number.isSafeInteger(value))) return
  if (notes) notes[key] = spelt
  else note(container, NUMBERS, { __proto__: null, [key]: spelt })
}

function noteOrder(container: Container, keys: string[]): void {
  const own = Object.keys(container)
  if (keys.some((key, index) => key !== own[index])) note(container, KEY_ORDER, keys)
}

/** Not enumerable: whoever lists or compares the container does not see it. */
function note(container: object, name: symbol, value: unknown): void {
  Object.defineProperty(container, name, { value, configurable: true })
}

/** Gives `copy` the notes of `original`; `rename` where its keys are other ones. */
export function copyNotes(original: object, copy: object, rename = (key: string) => key): void {
  const { [NUMBERS]: numbers, [KEY_ORDER]: order } = original as Notes
  if (numbers) {
    const renamed = Object.entries(numbers).map(([key, spelt]) => [rename(key), spelt])
    note(copy, NUMBERS, Object.assign(Object.create(null), Object.fromEntries(renamed)))
  }
  if (order) note(copy, KEY_ORDER, order.map(rename))
}

function skipSpace(text: string, at: number): number {
  let end = at
  while (' \n\r\t'.includes(text[end] ?? 'x')) end++
  return end
}

function stringEnd(text: string, at: number): number {
  let end = at + 1
  while (text[end] !== '"') end += text[end] === '\\' ? 2 : 1
  return end + 1
}

function literalEnd(text: string, at: number): number {
  let end = at
  while (end < text.length && !',]} \n\r\t'.includes(text[end]!)) end++
  return end
}
