/**
 * Which part of a rendered conversation belongs to which message: its words, the template's header before them and the
 * closing text behind them. Nothing is known of the template but what it renders: the words are located by marks
 * (locate.ts), and the border between two messages is where the conversation that ends with the first one ends.
 */
import { missingGenerationPrompt } from '../chat/generation-prompt.ts'
import { commonPrefix } from '../chat/spans.ts'
import type { ChatTemplate } from '../chat/template.ts'
import { asRendered } from '../chat/tool-calls.ts'
import type { Conversation, Message } from '../data/conversation.ts'
import { type Fragment, locate, tryRender } from './locate.ts'

export interface Region {
  /** UTF-16 position in the text. */
  start: number
  end: number
  /** Of the message; 'tools' or 'template' for what the template writes before the first one. */
  role: string
}

/** Ascending regions that cover `text`, a rendering of `conversation` or of its beginning. */
export function regionsOf(text: string, conversation: Conversation, template: ChatTemplate): Region[] {
  const whole = new Borders(template, asRendered(template, conversation), text).regions()
  const regions = whole.filter(({ start }) => start < text.length)
  const last = regions.at(-1)
  if (!last) return text === '' ? [] : [{ start: 0, end: text.length, role: 'template' }]
  last.end = text.length
  return regions
}

/** Words that no template treats specially. */
const PROBE: Message[] = [
  { role: 'user', content: 'Zwei' },
  { role: 'assistant', content: 'Vier' },
]

class Borders {
  readonly #template: ChatTemplate
  readonly #tools: readonly unknown[] | undefined
  /** Those that `#text` renders. */
  readonly #messages: readonly Message[]
  readonly #text: string
  /** A generation prompt that stands at the end of every rendering; '' in most templates. */
  readonly #prompt: string
  readonly #beginnings = new Map<number, string | undefined>()

  constructor(template: ChatTemplate, { messages, tools }: Conversation, text: string) {
    this.#template = template
    this.#tools = tools
    this.#messages = messages
    this.#prompt = constantPrompt(template)
    const count = this.#rendered(text)
    this.#text = count === undefined ? text : this.#beginning(count)!
    this.#messages = messages.slice(0, count ?? messages.length)
  }

  regions(): Region[] {
    return this.#withPreamble(this.#ownRegions())
  }

  #ownRegions(): Region[] {
    const fragments = locate(this.#template, this.#dialogue(this.#messages.length), this.#text)
    const ends: { at: number; message: number }[] = []
    let from: Fragment = { message: -1, start: 0, end: 0 }
    for (const fragment of fragments) {
      if (fragment.message !== from.message) ends.push(...this.#between(from, fragment))
      from = fragment
    }
    const end = this.#text.length
    ends.push(...this.#between(from, { message: this.#messages.length, start: end, end }))
    return this.#named(ends)
  }

  /** Where the messages from `before` on end that come before `after`, as far as the text between the two shows it. */
  #between(before: Fragment, after: Fragment): { at: number; message: number }[] {
    const ends: { at: number; message: number }[] = []
    let at = before.end
    if (before.message >= 0) {
      at = Math.min(this.#endOf(before, after.start), after.start)
      ends.push({ at, message: before.message })
    }
    // Messages without words of their own, such as a call of a tool that takes no arguments.
    for (let message = before.message + 1; message < after.message; message++) {
      const end = this.#prefixEnd(message)
      if (end === undefined || end <= at || end > after.start) continue
      ends.push({ at: end, message })
      at = end
    }
    return ends
  }

  #named(ends: readonly { at: number; message: number }[]): Region[] {
    const regions: Region[] = []
    let start = 0
    for (const { at, message } of ends) {
      if (at > start) regions.push({ start, end: at, role: this.#messages[message]!.role })
      start = Math.max(start, at)
    }
    const end = this.#text.length
    if (start < end) {
      const dangling = this.#prompt !== '' && start === end - this.#prompt.length
      const last = regions.at(-1)
      if (dangling || !last) regions.push({ start, end, role: dangling ? 'assistant' : 'template' })
      else last.end = end
    }
    return regions
  }

  /** End of a message, from its last words on: with what stands there when it is the last one as well. */
  #endOf({ message, end }: Fragment, limit: number): number {
    const prefix = this.#prefixEnd(message)
    if (prefix !== undefined && prefix >= end && prefix <= limit) return prefix
    const own = this.#beginning(message + 1)
    const words = own === undefined ? [] : locate(this.#template, this.#dialogue(message + 1), own, message)
    const last = words.at(-1)
    if (last === undefined || this.#hasOthers(own!, message, last.end)) return end + this.#stopLength(end)
    const closing = this.#withoutPrompt(own!).slice(last.end)
    const shared = commonPrefix(closing, this.#text.slice(end))
    if (shared === closing.length) return end + shared
    return end + Math.max(completeTags(closing.slice(0, shared)), this.#stopLength(end), this.#usualClosing(end))
  }

  /** Whether words of another message follow in `text`: one that the template writes out of order. */
  #hasOthers(text: string, message: number, from: number): boolean {
    return locate(this.#template, this.#dialogue(message + 1), text).some(
      (fragment) => fragment.message !== message && fragment.start >= from && fragment.end > fragment.start,
    )
  }

  /** Where message `index` ends, if all up to it is rendered as it would be without the others. */
  #prefixEnd(index: number): number | undefined {
    if (index === this.#messages.length - 1) return this.#withoutPrompt(this.#text).length
    const text = this.#beginning(index + 1)
    if (text === undefined) return undefined
    const own = this.#withoutPrompt(text)
    return this.#text.startsWith(own) ? own.length : undefined
  }

  /** Of what closes a user's turn, if it stands at `at`: an answer may end like that once others follow (gpt-oss). */
  #usualClosing(at: number): number {
    const text = tryRender(this.#template, { messages: PROBE.slice(0, 1) })
    const words = text?.lastIndexOf('Zwei') ?? -1
    if (words < 0) return 0
    const closing = this.#withoutPrompt(text!).slice(words + 'Zwei'.length)
    return this.#text.startsWith(closing, at) ? closing.length : 0
  }

  /** Of a stop token that stands at `at`, with the white space around it. */
  #stopLength(at: number): number {
    const text = this.#text.slice(at)
    const space = text.length - text.trimStart().length
    const stop = this.#template.stopTokens.find((token) => text.startsWith(token.text, space))
    if (!stop) return 0
    const end = space + stop.text.length
    return end + (/^\n/.test(text.slice(end)) ? 1 : 0)
  }

  /** What the template writes of its own accord before the first message is nobody's turn. */
  #withPreamble(regions: Region[]): Region[] {
    const first = regions[0]
    if (!first || ['system', 'developer'].includes(first.role)) return regions
    const [words] = locate(this.#template, this.#dialogue(this.#messages.length), this.#text, 0)
    if (!words || words.start >= first.end) return regions
    const header = this.#header(this.#messages[0]!)
    const before = this.#text.slice(0, words.start)
    if (!header || !before.endsWith(header)) return regions
    const end = before.length - header.length
    const { bos } = this.#template
    const written = before.slice(0, end)
    if ((bos ? written.replace(bos, '') : written).trim() === '') return regions
    const preamble = { start: 0, end, role: this.#tools ? 'tools' : 'template' }
    return [preamble, { ...first, start: end }, ...regions.slice(1)]
  }

  /** What stands before the words of such a message when it follows an answer. */
  #header(message: Message): string | undefined {
    const dialogue = { messages: [message, PROBE[1]!, message], ...(this.#tools && { tools: [...this.#tools] }) }
    const text = tryRender(this.#template, dialogue)
    if (text === undefined) return undefined
    const source = { file: '', line: 0 }
    const last = new Borders(this.#template, { ...dialogue, source }, text).#ownRegions().at(-1)
    const [words] = locate(this.#template, dialogue, text, 2)
    return words && last && last.role === message.role && last.start < words.start
      ? text.slice(last.start, words.start)
      : undefined
  }

  /** As many messages as `text` renders: it may be a beginning of the conversation, or of its rendering. */
  #rendered(text: string): number | undefined {
    const counts = this.#messages.map((_, index) => this.#messages.length - index)
    const is = (same: (own: string) => boolean) => (count: number) => {
      const own = this.#beginning(count)
      return own !== undefined && same(own)
    }
    return counts.find(is((own) => own === text)) ?? counts.toReversed().find(is((own) => own.startsWith(text)))
  }

  #beginning(count: number): string | undefined {
    if (!this.#beginnings.has(count)) this.#beginnings.set(count, tryRender(this.#template, this.#dialogue(count)))
    return this.#beginnings.get(count)
  }

  #dialogue(count: number): { messages: Message[]; tools?: unknown[] } {
    return { messages: this.#messages.slice(0, count), ...(this.#tools && { tools: [...this.#tools] }) }
  }

  #withoutPrompt(text: string): string {
    return this.#prompt !== '' && text.endsWith(this.#prompt) ? text.slice(0, -this.#prompt.length) : text
  }
}

/** What a template writes at the end of every rendering, asked for or not: the header of an answer to come. */
function constantPrompt(template: ChatTemplate): string {
  const [user] = PROBE
  const open = tryRender(template, { messages: [user!] })
  const closed = tryRender(template, { messages: PROBE })
  const stop = template.stopTokens[0]
  if (open === undefined || closed === undefined || !stop) return ''
  const answer = closed.lastIndexOf('Vier')
  const end = answer < 0 ? -1 : closed.indexOf(stop.text, answer)
  const prompt = end < 0 ? '' : closed.slice(end + stop.text.length)
  const isConstant = prompt.trim() !== '' && open.endsWith(prompt) && missingGenerationPrompt(template) === undefined
  return isConstant && template.render([user!], { addGenerationPrompt: true }) === open ? prompt : ''
}

/** Characters of `text` up to a tag that it only begins: `</a>\n<` has six. */
function completeTags(text: string): number {
  const open = Math.max(text.lastIndexOf('<'), text.lastIndexOf('['))
  return open < 0 || /[>\]]/.test(text.slice(open)) ? text.length : open
}
