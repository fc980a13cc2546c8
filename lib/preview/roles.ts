/**
 * Whose turn each token belongs to. Training needs the spans of assistant turns only; for a person the others are named
 * as well, found by rendering the beginnings of the conversation with the same template. Nothing depends on it but what
 * a preview shows.
 */
import type { Encoding } from '../chat/encoding.ts'
import type { SeenPiece } from '../chat/seen.ts'
import type { ChatTemplate } from '../chat/template.ts'
import type { Token } from '../chat/tokenizer.ts'
import { type Conversation, isConversation, type Row, type TextRow } from '../data/conversation.ts'

export interface Turn {
  /** 'user', 'assistant', ...; 'system, user' where a template writes both as one; 'text', 'prompt', 'completion', 'tokens'. */
  role: string
  /** Counts the turns of an example from 0: neighbours of equal role are told apart. */
  index: number
}

interface Region extends Turn {
  /** UTF-16 position in the text. */
  start: number
  end: number
}

/** A message whose end has not been found yet, and the conversation up to it where the template renders that. */
interface Opened {
  index: number
  beginning: string | undefined
}

/** One turn per token of the example. */
export function rolesOfTokens(
  row: Row,
  { text, whole, kept, lostBefore }: SeenPiece,
  template: ChatTemplate | undefined,
): Turn[] {
  if (!text) return new Array(kept.ids.length).fill({ role: 'tokens', index: 0 })
  const { weighted, encoding } = text
  const regions = isConversation(row) ? regionsOf(weighted.text, row, template!) : regionsOfText(row as TextRow)
  const turns: Turn[] = [
    ...new Array(weighted.prefix.length).fill(regions[0]!),
    ...turnsOfTokens(encoding, regions),
    ...new Array(weighted.suffix.length).fill(regions.at(-1)!),
  ]
  const left = turns.slice(lostBefore, lostBefore + kept.ids.length)
  // A bos that onTooLong keeps stands where the first of the kept tokens was.
  if (lostBefore > 0 && kept.ids[0] === whole.ids[0]) left[0] = turns[0]!
  return left
}

/** A token belongs to the region in which it ends: what straddles a border is the first of the new turn. */
function turnsOfTokens(encoding: Encoding, regions: readonly Region[]): Turn[] {
  const turns: Turn[] = []
  let at = 0
  for (let token = 0; token < encoding.length; token++) {
    const [, end] = encoding.span(token)
    while (at < regions.length - 1 && end > regions[at]!.end) at++
    turns.push(regions[at]!)
  }
  return turns
}

function regionsOfText({ text, promptLength }: TextRow): Region[] {
  if (promptLength === undefined) return [{ start: 0, end: text.length, role: 'text', index: 0 }]
  const completion = { start: promptLength, end: text.length, role: 'completion', index: 1 }
  return promptLength === 0 ? [completion] : [{ start: 0, end: promptLength, role: 'prompt', index: 0 }, completion]
}

/** Regions that cover `text`, one per message, or one for several that the template does not keep apart. */
export function regionsOf(text: string, conversation: Conversation, template: ChatTemplate): Region[] {
  const { messages, tools } = conversation
  const regions: Region[] = []
  let start = 0
  let open: Opened[] = []
  for (let count = 1; count <= messages.length && start < text.length; count++) {
    const beginning = tryRender(template, conversation, count)
    open.push({ index: count - 1, beginning })
    if (beginning === undefined || beginning.length <= start || !text.startsWith(beginning)) continue
    regions.push(
      ...divide(text, { start, end: beginning.length }, open, conversation, template.stopTokens, regions.length),
    )
    start = beginning.length
    open = []
  }
  if (start < text.length) {
    // What follows the last message as it is rendered, or a text whose end no beginning shares.
    const last = regions.at(-1)
    if (open.length > 0)
      regions.push(
        ...divide(text, { start, end: text.length }, open, conversation, template.stopTokens, regions.length),
      )
    else if (last) last.end = text.length
    else regions.push({ start, end: text.length, role: tools ? 'tools' : 'template', index: 0 })
  }
  return regions
}

function tryRender(template: ChatTemplate, { messages, tools }: Conversation, count: number): string | undefined {
  try {
    return template.render(messages.slice(0, count), { tools })
  } catch {
    // Many templates refuse a conversation that ends early, such as a system message alone.
    return undefined
  }
}

/** A stretch that several messages share: each ends where its own words do, if these can be found in order. */
function divide(
  text: string,
  { start, end }: { start: number; end: number },
  open: readonly Opened[],
  { messages }: Conversation,
  stops: readonly Token[],
  firstIndex: number,
): Region[] {
  const regions: Region[] = []
  let from = start
  let roles: string[] = []
  for (const [position, { index, beginning }] of open.entries()) {
    const { role, content } = messages[index]!
    if (!roles.includes(role)) roles.push(role)
    if (position === open.length - 1) break
    const length = turnLength(text.slice(from, end), (content ?? '').trim(), beginning, stops)
    if (length === undefined) continue
    regions.push({ start: from, end: from + length, role: roles.join(', '), index: firstIndex + regions.length })
    from += length
    roles = []
  }
  regions.push({ start: from, end, role: roles.join(', '), index: firstIndex + regions.length })
  return regions
}

/** Of a stop token that `text` starts with: templates that always end in a generation prompt change what follows it. */
function stopTokenLength(text: string, stops: readonly Token[]): number {
  const space = text.length - text.trimStart().length
  const stop = stops.find((token) => text.startsWith(token.text, space))
  return stop ? space + stop.text.length : 0
}

/**
 * Characters of `text` up to the end of a turn: its content and what the template writes after it. `beginning` is the
 * conversation up to this turn, which ends alike even where the template renders the turn's start differently later on.
 */
function turnLength(
  text: string,
  content: string,
  beginning: string | undefined,
  stops: readonly Token[],
): number | undefined {
  const at = content === '' ? -1 : text.indexOf(content)
  if (at >= 0) {
    const stop = at + content.length
    const own = beginning?.lastIndexOf(content) ?? -1
    const tail = own < 0 ? '' : beginning!.slice(own + content.length)
    return stop + (text.startsWith(tail, stop) ? tail.length : stopTokenLength(text.slice(stop), stops))
  }
  if (beginning === undefined) return undefined
  // A turn that lost its start (its reasoning): the longest ending that still stands there, if it reaches its words.
  let [shorter, longer] = [0, beginning.length + 1]
  while (longer - shorter > 1) {
    const middle = (shorter + longer) >> 1
    if (text.includes(beginning.slice(-middle))) shorter = middle
    else longer = middle
  }
  const ending = shorter === 0 ? '' : beginning.slice(-shorter)
  const own = beginning.lastIndexOf(content)
  const lastWord = content.slice(content.search(/\S*$/))
  const reaches = own < 0 ? ending.includes(lastWord) : ending.length > beginning.length - own - content.length
  return reaches ? text.indexOf(ending) + ending.length : undefined
}
