/**
 * Which part of a rendered conversation each assistant turn is, stop token included.
 *
 * One rule serves every template: a turn is what follows its generation prompt when it is the last one, up to its stop
 * token (or what `{% generation %}` marks there). A longer rendering may train that turn only if it begins with the same
 * text. Where it does not, the template has rewritten history (reasoning stripped from earlier turns, text injected into
 * the last), and the conversation is split so that each turn is trained in the context that inference would show it.
 */
import type { Conversation, Message } from '../data/conversation.ts'
import { RowProblem, visitStrings } from '../data/rows.ts'
import { TunesmithError } from '../errors.ts'
import { BLOCK_END, BLOCK_START } from './jinja.ts'
import { mapStrings } from './map-strings.ts'
import { promptMismatch } from './prompt-mismatch.ts'
import type { ChatTemplate } from './template.ts'
import { REFUSED } from './tool-calls.ts'

/** Content that no row has: a noncharacter. */
const UNLIKELY = '\ufdd2'
const MARKS = new RegExp(`[${BLOCK_START}${BLOCK_END}]`, 'g')

/** Characters [start, end) in UTF-16 units of the rendering that belong to turn `turn` (index into messages). */
export interface Span {
  start: number
  end: number
  turn: number
}

/** One text to train on. */
export interface Rendering {
  text: string
  /** Ascending; those of the turns that are trained here. */
  spans: Span[]
  /**
   * Where what no earlier rendering has shown begins: after the last turn of the one before; 0 for the first. Until
   * there, messages are repeated as context, some of them rewritten.
   */
  newFrom: number
}

export type HistoryRewrite = 'split' | 'error'

/**
 * Renders `conversation` and finds the spans of the assistant turns `turns` (ascending indices). Nearly always one
 * rendering; several where the template rewrites history, each turn in exactly one of them.
 *
 * @param everything the text outside the turns counts as well: what follows the last of them must be in a rendering too
 * @throws RowProblem where the template refuses the row. TunesmithError `ERR_STOP_TOKEN_UNTRAINED` where a turn ends
 * without a stop token, `ERR_HISTORY_REWRITE` under the policy 'error', `ERR_TEMPLATE` where generation tags change the
 * rendering.
 */
export function renderWithSpans(
  template: ChatTemplate,
  conversation: Conversation,
  turns: readonly number[],
  historyRewrite: HistoryRewrite,
  everything = false,
): Rendering[] {
  const renderer = new Renderer(template, conversation)
  const whole = renderer.text(conversation.messages.length)
  const ends = turns.map((turn) => renderer.turn(turn))
  const stable = ends.filter((end) => end.isPrefixOf(whole))
  if (stable.length === ends.length) return [{ text: whole, spans: ends.flatMap(({ spans }) => spans), newFrom: 0 }]
  if (historyRewrite === 'error') {
    const turn = ends.find((end) => !end.isPrefixOf(whole))!
    throw new TunesmithError(
      'ERR_HISTORY_REWRITE',
      `${renderer.place}: the chat template renders messages[${turn.index}] differently once later turns follow ` +
        `(${turn.difference(whole)}). Set historyRewrite to "split" to train it in its own context`,
    )
  }
  return split(renderer, ends, everything ? whole : undefined)
}

/**
 * From the last turn back: each rendering takes along every earlier turn that stands in it unchanged.
 *
 * @param whole the whole conversation, where what follows its last turn is wanted too
 */
function split(renderer: Renderer, ends: readonly TurnEnd[], whole: string | undefined): Rendering[] {
  const renderings: (Rendering & { last: number })[] = []
  let open = [...ends]
  for (let last = open.pop(); last !== undefined; last = open.pop()) {
    const { text, index } = last
    const here = open.filter((end) => end.isPrefixOf(text))
    open = open.filter((end) => !here.includes(end))
    renderings.unshift({ text, spans: [...here, last].flatMap(({ spans }) => spans), newFrom: 0, last: index })
  }
  const final = renderings.at(-1)!
  if (whole !== undefined && final.text !== whole) {
    if (ends.at(-1)!.isPrefixOf(whole)) final.text = whole
    else renderings.push({ text: whole, spans: [], newFrom: 0, last: renderer.count - 1 })
  }
  for (const [index, rendering] of renderings.entries()) {
    if (index > 0) rendering.newFrom = renderer.endOf(renderings[index - 1]!.last, rendering.last + 1)
  }
  return renderings
}

/** A turn as it is when it comes last. */
class TurnEnd {
  readonly index: number
  /** The conversation up to and including this turn. */
  readonly text: string
  readonly spans: Span[]

  constructor(index: number, text: string, spans: Span[]) {
    this.index = index
    this.text = text
    this.spans = spans
  }

  get end(): number {
    return this.spans.at(-1)!.end
  }

  /** Whether `other` has this turn and everything before it unchanged. */
  isPrefixOf(other: string): boolean {
    return this.text === other || other.startsWith(this.text.slice(0, this.end))
  }

  difference(other: string): string {
    const at = commonPrefix(this.text.slice(0, this.end), other)
    const from = Math.max(0, at - 20)
    return `${JSON.stringify(this.text.slice(from, at + 20))} becomes ${JSON.stringify(other.slice(from, at + 20))}`
  }
}

/** The renderings of one conversation's beginnings, each made once. */
class Renderer {
  readonly place: string
  readonly #template: ChatTemplate
  readonly #conversation: Conversation
  readonly #texts = new Map<number, string>()

  constructor(template: ChatTemplate, conversation: Conversation) {
    this.#template = template
    this.#conversation = conversation
    this.place = `${conversation.source.file}:${conversation.source.line}`
  }

  /** Messages of the whole conversation. */
  get count(): number {
    return this.#conversation.messages.length
  }

  /** The first `count` messages, without a generation prompt. */
  text(count: number): string {
    let text = this.#texts.get(count)
    if (text === undefined) {
      text = this.#render(this.#conversation.messages.slice(0, count))
      this.#texts.set(count, text)
    }
    return text
  }

  turn(index: number): TurnEnd {
    const text = this.text(index + 1)
    const spans = this.#template.tagged ? this.#tagged(index, text) : [this.#untagged(index, text)]
    return new TurnEnd(index, text, spans)
  }

  /** From the end of the generation prompt to the first stop token after it. */
  #untagged(index: number, text: string): Span {
    const start = this.#start(index, text)
    const end = this.#stop(index, text, start)
    if (end === undefined) throw this.#noStop(index, text.slice(start))
    return { start, end, turn: index }
  }

  #start(index: number, text: string): number {
    const before = this.#conversation.messages.slice(0, index)
    let prompt: string | undefined
    try {
      prompt = this.#template.render(before, { tools: this.#conversation.tools, addGenerationPrompt: true })
    } catch (error) {
      // Some templates cannot render an empty conversation; a conversation that opens with a reply has no prompt.
      if (index > 0) throw this.#refusal(error)
    }
    if (prompt !== undefined && text.startsWith(prompt)) return prompt.length
    if (index === 0) return this.#headerLength(text)
    const { messages, tools } = this.#conversation
    const places = { prompt: prompt!, text, at: commonPrefix(prompt!, text) }
    throw promptMismatch(this.#template, messages.slice(0, index + 1), tools, places)
  }

  /** Where an opening reply starts: the text before it does not depend on what it says. */
  #headerLength(text: string): number {
    const other = this.#render([{ ...this.#conversation.messages[0]!, content: UNLIKELY }])
    const at = other.indexOf(UNLIKELY)
    return at >= 0 && text.startsWith(other.slice(0, at)) ? at : commonPrefix(text, other)
  }

  /** End of the first stop token from `start` on. Stop tokens spelled in the turn's own words are looked past. */
  #stop(index: number, text: string, start: number): number | undefined {
    const stops = this.#template.stopTokens.map((stop) => stop.text)
    const blanked = this.#withoutStops(index, text, stops)
    let end: number | undefined
    let first = Number.POSITIVE_INFINITY
    for (const stop of stops) {
      const at = blanked.indexOf(stop, start)
      if (at >= 0 && at < first) {
        first = at
        end = at + stop.length
      }
    }
    return end
  }

  /** `text` with stop tokens in the turn's own strings replaced by as many letters, so that positions stay. */
  #withoutStops(index: number, text: string, stops: readonly string[]): string {
    const message = this.#conversation.messages[index]!
    let spelled = false
    visitStrings(message, '', (string) => {
      spelled ||= stops.some((stop) => string.includes(stop))
    })
    if (!spelled) return text
    const blank = (string: string) => stops.reduce((s, stop) => s.replaceAll(stop, 'x'.repeat(stop.length)), string)
    const blankMessage = mapStrings(message, blank) as Message
    const messages = [...this.#conversation.messages.slice(0, index), blankMessage]
    const blanked = this.#render(messages)
    if (blanked.length === text.length) return blanked
    throw new RowProblem(
      `messages[${index}]`,
      'contains stop tokens as text, and the template treats them specially, so the end of the turn cannot be told',
    )
  }

  /**
   * Where turn `index`, perhaps rewritten, ends among the first `count` messages: after its last words and the stop token
   * before the next message. That message is found by what changes with its words.
   */
  endOf(index: number, count: number): number {
    const text = this.text(count)
    const messages = this.#conversation.messages.slice(0, count)
    messages[index + 1] = { ...messages[index + 1]!, content: UNLIKELY }
    const next = commonPrefix(this.#render(messages), text)
    const stops = this.#template.stopTokens.map(({ text: stop }) => ({ stop, at: text.lastIndexOf(stop, next - 1) }))
    const stopped = Math.max(0, ...stops.map(({ stop, at }) => (at < 0 ? 0 : at + stop.length)))
    const { content } = messages[index]!
    const words = typeof content === 'string' ? content.trim() : ''
    const at = words === '' ? -1 : text.lastIndexOf(words, next)
    return Math.min(next, Math.max(stopped, at < 0 ? 0 : at + words.length))
  }

  /** The blocks that this turn adds to those of the messages before it. */
  #tagged(index: number, text: string): Span[] {
    const before = index === 0 ? 0 : findBlocks(this.#marked(index)).blocks.length
    const spans = this.#blocks(index + 1).slice(before)
    const last = spans.at(-1)
    const ending = last ? text.slice(last.start, last.end).trimEnd() : ''
    if (!this.#template.stopTokens.some((stop) => ending.endsWith(stop.text))) {
      const shown = last ? text.slice(last.start) : text.slice(-80)
      throw this.#noStop(index, shown, 'Its {% generation %} block must include the stop token')
    }
    return spans.map((span) => ({ ...span, turn: index }))
  }

  #blocks(count: number): { start: number; end: number }[] {
    const plain = this.text(count)
    if (plain.includes(BLOCK_START) || plain.includes(BLOCK_END)) {
      throw new RowProblem('', 'contains the noncharacter U+FDD0 or U+FDD1, which marks generation blocks; remove it')
    }
    const { blocks, balanced, unmarked } = findBlocks(this.#marked(count))
    if (!balanced || unmarked !== plain) {
      throw new TunesmithError(
        'ERR_TEMPLATE',
        `${this.place}: the {% generation %} tags of the chat template do not enclose output that can be told apart ` +
          '(the rendering changes when they are marked); move them around the assistant output itself',
      )
    }
    return blocks
  }

  #marked(count: number): string {
    return this.#render(this.#conversation.messages.slice(0, count), true)
  }

  #render(messages: readonly Message[], marked = false): string {
    try {
      return this.#template.render(messages, { tools: this.#conversation.tools, marked })
    } catch (error) {
      throw this.#refusal(error)
    }
  }

  #refusal(error: unknown): RowProblem {
    return new RowProblem('messages', `${REFUSED}: ${(error as Error).message}`)
  }

  #noStop(
    index: number,
    rendered: string,
    remedy = 'Use a chatTemplate that ends assistant turns in one',
  ): TunesmithError {
    const stops = this.#template.stopTokens.map(({ text }) => text).join(', ') || 'none is known'
    const shown = rendered.length > 120 ? `...${rendered.slice(-120)}` : rendered
    return new TunesmithError(
      'ERR_STOP_TOKEN_UNTRAINED',
      `${this.place}: messages[${index}] is rendered as ${JSON.stringify(shown)}, without a stop token to train ` +
        `(${stops}): the model would never learn to stop. ${remedy}`,
    )
  }
}

/** The generation blocks of a marked rendering, in positions of the same text without the marks. Empty ones do not count. */
function findBlocks(marked: string) {
  const blocks: { start: number; end: number }[] = []
  let unmarked = ''
  let start: number | undefined
  let balanced = true
  let from = 0
  for (const { index, 0: mark } of marked.matchAll(MARKS)) {
    unmarked += marked.slice(from, index)
    from = index + 1
    balanced &&= (mark === BLOCK_START) === (start === undefined)
    if (mark === BLOCK_START) {
      start = unmarked.length
    } else {
      if (start !== undefined && unmarked.length > start) blocks.push({ start, end: unmarked.length })
      start = undefined
    }
  }
  unmarked += marked.slice(from)
  return { blocks, balanced: balanced && start === undefined, unmarked }
}

export function commonPrefix(a: string, b: string): number {
  const length = Math.min(a.length, b.length)
  let at = 0
  while (at < length && a.charCodeAt(at) === b.charCodeAt(at)) at++
  return at
}
