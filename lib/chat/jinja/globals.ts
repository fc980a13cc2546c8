/** Names that every template may use. */
import { Scope } from './runtime.ts'
import { strftime } from './strftime.ts'
import {
  type Callable,
  dictItems,
  isDict,
  isInteger,
  iterate,
  type Keywords,
  Namespace,
  Range,
  text,
  typeName,
  type Value,
} from './values.ts'

/** Names that `globals` sets. */
export const GLOBAL_NAMES = ['range', 'namespace', 'dict', 'cycler', 'joiner', 'raise_exception', 'strftime_now']

/** As jinja2's sandbox has it. */
const MAX_RANGE = 100_000

export function globals(now: Date): Scope {
  const names: Record<string, Callable> = {
    range,
    namespace: (args, keywords) =>
      new Namespace(new Map([...entries(args, keywords)].map(([key, value]) => [text(key), value]))),
    dict: (args, keywords) => entries(args, keywords),
    cycler: (args) => cycler(args),
    joiner: ([separator = ', ']) => {
      let used = false
      return () => {
        const before = used ? separator : ''
        used = true
        return before
      }
    },
    raise_exception: ([message]) => {
      throw new Error(text(message))
    },
    strftime_now: ([format]) => strftime(now, text(format)),
  }
  return new Scope(undefined, new Map(Object.entries(names)))
}

function entries([source]: Value[], keywords: Keywords): Map<Value, Value> {
  const made = new Map<Value, Value>()
  if (source !== undefined) {
    const pairs = isDict(source) ? dictItems(source) : iterate(source).map((pair) => iterate(pair))
    for (const [key, value] of pairs) made.set(key, value)
  }
  for (const [key, value] of keywords ?? []) made.set(key, value)
  return made
}

function cycler(items: Value[]): Namespace {
  let at = 0
  const advance = () => {
    const current = items[at]
    at = (at + 1) % items.length
    made.attributes.set('current', items[at])
    return current
  }
  const reset = () => {
    at = 0
    made.attributes.set('current', items[0])
  }
  const made = new Namespace(
    new Map<string, Value>([
      ['next', advance],
      ['reset', reset],
      ['current', items[0]],
    ]),
  )
  return made
}

function range(args: Value[]): Value[] {
  const numbers = args.map((value) => {
    if (isInteger(value) || typeof value === 'boolean') return Number(value)
    throw new Error(`'${typeName(value)}' object cannot be interpreted as an integer`)
  })
  const [from, to] = numbers.length < 2 ? [0, numbers[0] ?? 0] : [numbers[0]!, numbers[1]!]
  const step = numbers[2] ?? 1
  if (step === 0) throw new Error('range() arg 3 must not be zero')
  const length = Math.max(0, Math.ceil((to - from) / step))
  if (length > MAX_RANGE)
    throw new Error(`range() of ${length} numbers in a chat template; up to ${MAX_RANGE} are allowed`)
  const made = new Range()
  for (let index = 0; index < length; index++) made.push(from + index * step)
  return made
}
