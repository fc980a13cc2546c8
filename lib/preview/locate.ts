/**
 * Where the words of each message stand in a rendered conversation. Marks are put between the letters of the messages,
 * the conversation is rendered again, and where the result without marks is the same text, the marks tell the places:
 * whatever the template is, and however often the same words occur.
 */
import type { ChatTemplate } from '../chat/template.ts'
import type { Conversation, Message } from '../data/conversation.ts'
import { copyNotes } from '../data/exact-json.ts'

/** Characters [start, end), UTF-16, that are words of message `message`. */
export interface Fragment {
  message: number
  start: number
  end: number
}

type Dialogue = Pick<Conversation, 'messages' | 'tools'>

/** A noncharacter, before two of private use that number the mark. */
const MARK = '\ufdd2'
const MARKS = /\ufdd2([\ue000-\uf8ff])([\ue000-\uf8ff])/g
const FIRST_DIGIT = 0xe000
const DIGITS = 0x1900

/** Where marks stand in a string. Templates look at how a text begins or ends: some place is free nearly always. */
const PLACEMENTS = ['both ends', 'middle', 'end', 'start'] as const
type Placement = (typeof PLACEMENTS)[number]

/** A string with a mark at `offset`. */
interface Marked {
  message: number
  text: string
  offset: number
  /** Names of tools come again in the header of the result, which is another message. */
  once: boolean
}

/** What the template makes of the messages; undefined where it refuses them. */
export function tryRender(template: ChatTemplate, { messages, tools }: Dialogue): string | undefined {
  try {
    return template.render(messages, { tools })
  } catch {
    // Many templates refuse a conversation that ends early, such as a system message alone.
    return undefined
  }
}

/**
 * The words of the messages in `text`, their rendering, in the order of the text. What cannot be told is left out.
 *
 * @param which index of the only message that is asked for; all without it
 */
export function locate(template: ChatTemplate, dialogue: Dialogue, text: string, which?: number): Fragment[] {
  const all = [...dialogue.messages.keys()]
  const asked = which === undefined ? all : [which]
  const found =
    tryPlacement(template, dialogue, text, asked, 'both ends') ??
    asked.flatMap((message) => {
      for (const placement of PLACEMENTS) {
        const fragments = tryPlacement(template, dialogue, text, [message], placement)
        if (fragments) return fragments
      }
      return []
    })
  return ascending(found)
}

function tryPlacement(
  template: ChatTemplate,
  { messages, tools }: Dialogue,
  text: string,
  which: readonly number[],
  placement: Placement,
): Fragment[] | undefined {
  const marks: Marked[] = []
  const marked = messages.map((message, index) =>
    which.includes(index) ? markMessage(message, index, placement, marks) : message,
  )
  const rendered = tryRender(template, { messages: marked, ...(tools && { tools }) })
  if (rendered === undefined || text.includes(MARK)) return undefined
  const found: { mark: Marked; at: number }[] = []
  const seen = new Set<number>()
  let unmarked = ''
  let from = 0
  for (const match of rendered.matchAll(MARKS)) {
    unmarked += rendered.slice(from, match.index)
    from = match.index + match[0].length
    const id = number(match[1]!, match[2]!)
    const mark = marks[id]
    if (!mark || (mark.once && seen.has(id))) continue
    seen.add(id)
    found.push({ mark, at: unmarked.length })
  }
  unmarked += rendered.slice(from)
  return unmarked === text ? found.map(({ mark, at }) => fragmentAt(text, at, mark)) : undefined
}

/** The letters around a mark that are those of its string. */
function fragmentAt(text: string, at: number, { message, text: own, offset }: Marked): Fragment {
  let start = at
  for (let i = offset; i > 0 && start > 0 && own[i - 1] === text[start - 1]; i--) start--
  let end = at
  for (let i = offset; i < own.length && end < text.length && own[i] === text[end]; i++) end++
  return { message, start, end }
}

/** Sorted, without overlaps. */
function ascending(fragments: readonly Fragment[]): Fragment[] {
  let last = 0
  return fragments
    .toSorted((a, b) => a.start - b.start || a.end - b.end)
    .flatMap(({ message, start, end }) => {
      const from = Math.max(start, last)
      if (end < from) return []
      last = end
      return [{ message, start: from, end }]
    })
}

/** Keys whose text is no part of the words of a message. */
const NO_WORDS = ['role', 'name', 'tool_call_id', 'tool_calls']

function markMessage(message: Message, index: number, placement: Placement, marks: Marked[]): Message {
  const put = (text: string, once = false) => {
    const offsets = offsetsIn(text, placement)
    return offsets.reduceRight((marked, offset) => {
      marks.push({ message: index, text, offset, once })
      return marked.slice(0, offset) + markOf(marks.length - 1) + marked.slice(offset)
    }, text)
  }
  const copy: Message = { ...message }
  copyNotes(message, copy)
  const strings = Object.entries(message).filter(
    (entry): entry is [string, string] => typeof entry[1] === 'string' && !NO_WORDS.includes(entry[0]),
  )
  // Templates ask whether there is content: what is blank is marked only where the message has nothing else.
  const blankToo = !message.tool_calls?.length && strings.every(([, text]) => text.trim() === '')
  for (const [key, text] of strings) if (blankToo || text.trim() !== '') copy[key] = put(text)
  if (message.tool_calls) {
    copy.tool_calls = message.tool_calls.map((call) => {
      const own = {
        ...call.function,
        name: put(call.function.name, true),
        arguments: putAll(call.function.arguments, put),
      }
      copyNotes(call.function, own)
      return { ...call, function: own }
    })
  }
  return copy
}

/** Strings inside a JSON value; keys stay. */
function putAll(value: unknown, put: (text: string) => string): unknown {
  if (typeof value === 'string') return put(value)
  if (typeof value !== 'object' || value === null) return value
  const copy = Array.isArray(value)
    ? value.map((item) => putAll(item, put))
    : Object.fromEntries(Object.entries(value).map(([key, item]) => [key, putAll(item, put)]))
  copyNotes(value, copy)
  return copy
}

/** Ascending positions between characters, beside or between those that are no white space: templates trim. */
function offsetsIn(text: string, placement: Placement): number[] {
  const first = text.search(/\S/)
  if (first < 0) return [text.length]
  const afterFirst = first + String.fromCodePoint(text.codePointAt(first)!).length
  const end = text.trimEnd().length
  const beforeLast = end - (isLowSurrogate(text, end - 1) ? 2 : 1)
  const middle = (afterFirst + end) >> 1
  if (placement === 'start' || beforeLast < afterFirst) return [afterFirst]
  if (placement === 'end') return [beforeLast]
  if (placement === 'middle') return [isLowSurrogate(text, middle) ? middle - 1 : middle]
  return beforeLast === afterFirst ? [afterFirst] : [afterFirst, beforeLast]
}

function isLowSurrogate(text: string, at: number): boolean {
  return (text.charCodeAt(at) & 0xfc00) === 0xdc00
}

function markOf(id: number): string {
  return MARK + String.fromCharCode(FIRST_DIGIT + Math.floor(id / DIGITS), FIRST_DIGIT + (id % DIGITS))
}

function number(high: string, low: string): number {
  return (high.charCodeAt(0) - FIRST_DIGIT) * DIGITS + low.charCodeAt(0) - FIRST_DIGIT
}
