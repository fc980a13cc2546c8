/**
 * From rendered text to token ids with loss weights. A rendering is tokenised once, whole; spans found in the text are
 * mapped to tokens by character offsets, and a token that overlaps a span carries its weight, as with Transformers'
 * char_to_token. Weights never come from comparing ids with eos or pad.
 */
import type { Conversation, Message, TextRow } from '../data/conversation.ts'
import { RowProblem } from '../data/rows.ts'
import type { Encoding } from './encoding.ts'
import { type HistoryRewrite, type Rendering, renderWithSpans } from './spans.ts'
import type { ChatTemplate } from './template.ts'
import type { Tokenizer } from './tokenizer.ts'

export type TrainOn = 'assistant' | 'last' | 'all'

export interface WeightOptions {
  trainOn: TrainOn
  /** Weight of the tokens that `trainOn` leaves out. */
  promptLossWeight: number
  historyRewrite: HistoryRewrite
  /** Find every turn that `trainOn` names, also those of weight 0. Default false. */
  everyTurn?: boolean
}

/** Text to tokenise, with the weight of its characters. */
export interface WeightedText {
  text: string
  /** How it is tokenised where it spells control tokens that are to be ordinary text (escape.ts). */
  escaped?: string
  /** Weight of everything outside the spans, from character `baseFrom` on; 0 before it. */
  base: number
  baseFrom: number
  /** Ascending and disjoint. `turn` is the index of the message that a span belongs to; absent in rows of text. */
  spans: { start: number; end: number; weight: number; turn?: number }[]
  /** Token ids around the text that it does not spell (bos and eos of a plain text row). */
  prefix: number[]
  /** Carries loss. */
  suffix: number[]
  /** Multiplies every weight: that of the row. */
  scale: number
}

/**
 * The texts of a conversation: one, or several where the template rewrites history. Turns of weight 0 count as context.
 *
 * @throws RowProblem and TunesmithError as renderWithSpans.
 */
export function weightedConversation(
  template: ChatTemplate,
  conversation: Conversation,
  { trainOn, promptLossWeight, historyRewrite, everyTurn = false }: WeightOptions,
): WeightedText[] {
  const { messages } = conversation
  const base = trainOn === 'all' ? 1 : promptLossWeight
  if (trainOn === 'all') refuseForeignWeights(messages)
  const weights = turnWeights(messages, trainOn, base)
  // Where nothing else carries loss, turns without it are context and need not be found.
  const turns = [...weights].flatMap(([turn, weight]) => (base > 0 || everyTurn || weight > 0 ? [turn] : []))
  if (turns.length === 0 && base === 0) return []
  const renderings = renderWithSpans(template, conversation, turns, historyRewrite, base > 0)
  return renderings.map(({ text, spans, newFrom }: Rendering) => ({
    text,
    base,
    // What an earlier rendering has shown has carried its weight there.
    baseFrom: newFrom,
    spans: spans.map(({ start, end, turn }) => ({ start, end, turn, weight: weights.get(turn)! })),
    prefix: [],
    suffix: [],
    scale: conversation.weight ?? 1,
  }))
}

/**
 * A row of plain text, where every token carries loss, or of prompt and completion as text, where the completion does.
 * Bos where the tokenizer adds it; eos, with loss, so that documents and answers end.
 */
export function weightedText(
  { text, promptLength, weight }: TextRow,
  tokenizer: Tokenizer,
  { trainOn, promptLossWeight }: Pick<WeightOptions, 'trainOn' | 'promptLossWeight'>,
): WeightedText {
  const base = promptLength === undefined || trainOn === 'all' ? 1 : promptLossWeight
  return {
    text,
    base,
    baseFrom: 0,
    spans: promptLength === undefined || base === 1 ? [] : [{ start: promptLength, end: text.length, weight: 1 }],
    scale: weight ?? 1,
    prefix: tokenizer.addsBos && tokenizer.bos ? [tokenizer.bos.id] : [],
    suffix: tokenizer.eos ? [tokenizer.eos.id] : [],
  }
}

/**
 * Weights of the assistant turns by index: their own, times that of the rest of the text where `trainOn` leaves them out.
 * All are found where the rest of the text counts: a template may rewrite any of them, which must not count twice.
 */
function turnWeights(messages: readonly Message[], trainOn: TrainOn, base: number): Map<number, number> {
  const assistant = [...messages.keys()].filter((index) => messages[index]!.role === 'assistant')
  const trained = trainOn === 'last' ? assistant.slice(-1) : assistant
  const counted = base > 0 ? assistant : trained
  return new Map(counted.map((index) => [index, (messages[index]!.weight ?? 1) * (trained.includes(index) ? 1 : base)]))
}

function refuseForeignWeights(messages: readonly Message[]): void {
  const index = messages.findIndex(({ role, weight }) => role !== 'assistant' && weight !== undefined && weight !== 1)
  if (index < 0) return
  throw new RowProblem(
    `messages[${index}].weight`,
    'with trainOn "all" only assistant turns can have a weight of their own; remove it',
  )
}

/** Ids, weights, and the tokens that reach over the edge of a span. */
export interface WeightedTokens {
  ids: Int32Array
  /** [ids.length]; the first is 0, since nothing predicts the first token. */
  weights: Float32Array
  /** Spans whose first token begins in the generation prompt, or whose last one ends in what follows. */
  straddling: number
  /** The tokens of each turn that was looked for, ascending. */
  turns: TurnTokens[]
}

/** The tokens [first, end) of one turn, its stop token included. */
export interface TurnTokens {
  first: number
  end: number
  weight: number
  /** Index into messages; absent in rows of text. */
  turn?: number
}

/** @throws RowProblem where a span has no token, or the text starts with bos twice. */
export function weighTokens(weighted: WeightedText, encoding: Encoding, tokenizer: Tokenizer): WeightedTokens {
  const { prefix, suffix, base, baseFrom, spans, scale } = weighted
  const inner = encoding.ids
  const ids = prefix.length + suffix.length === 0 ? inner : surrounded(prefix, inner, suffix)
  const { bos } = tokenizer
  if (bos && ids[0] === bos.id && ids[1] === bos.id) {
    throw new RowProblem('', `the text starts with ${bos.text} twice; the template or the row writes it once too often`)
  }
  const weights = new Float32Array(ids.length)
  if (base > 0) {
    const from = baseFrom === 0 ? 0 : (encoding.range(baseFrom, weighted.text.length)?.first ?? inner.length)
    weights.fill(base, baseFrom === 0 ? 0 : prefix.length + from)
  }
  let straddling = 0
  const turns: TurnTokens[] = []
  // Turns without loss first: a token shared with a turn that has some carries it.
  for (const { start, end, weight, turn } of spans.toSorted((a, b) => a.weight - b.weight)) {
    const range = encoding.range(start, end)
    if (!range)
      throw new RowProblem('', `the tokenizer makes no token of ${JSON.stringify(weighted.text.slice(start, end))}`)
    if (range.startsBefore || range.endsAfter) straddling++
    const first = prefix.length + range.first
    const last = end === weighted.text.length ? ids.length : prefix.length + range.end
    weights.fill(weight, first, prefix.length + range.end)
    addTurn(turns, { first, end: last, weight, ...(turn !== undefined && { turn }) })
  }
  weights.fill(1, prefix.length + inner.length)
  weights[0] = 0
  if (scale !== 1) for (let i = 0; i < weights.length; i++) weights[i]! *= scale
  return { ids, weights, straddling, turns: turns.sort((a, b) => a.first - b.first) }
}

/** Blocks of one turn are one turn. */
function addTurn(turns: TurnTokens[], found: TurnTokens): void {
  const known = turns.find(({ turn }) => turn !== undefined && turn === found.turn)
  if (!known) {
    turns.push(found)
    return
  }
  known.first = Math.min(known.first, found.first)
  known.end = Math.max(known.end, found.end)
}

function surrounded(prefix: readonly number[], inner: Int32Array, suffix: readonly number[]): Int32Array {
  const ids = new Int32Array(prefix.length + inner.length + suffix.length)
  ids.set(prefix)
  ids.set(inner, prefix.length)
  ids.set(suffix, prefix.length + inner.length)
  return ids
}
