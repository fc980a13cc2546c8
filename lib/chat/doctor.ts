/**
 * The template doctor: does this template, with this tokenizer and these rows, train what inference will ask for? Runs
 * before training, and on request. It looks at what training gets, rendered, tokenised and cut to its length, not at the
 * template's source.
 */
import { MALFORMED } from '../data/bad-rows.ts'
import type { Conversation } from '../data/conversation.ts'
import { place } from '../data/source.ts'
import { type EmbeddingReader, examineControlTokens } from './doctor-embedding.ts'
import { missingGenerationPrompt } from './generation-prompt.ts'
import type { SeenConversation, SeenPiece } from './seen.ts'
import { ChatTemplate } from './template.ts'
import type { Tokenizer } from './tokenizer.ts'
import { asRendered } from './tool-calls.ts'
import type { TurnTokens, WeightOptions } from './weights.ts'

export type Check =
  | 'rendering'
  | 'stop token'
  | 'bos'
  | 'generation prompt'
  | 'tool calls'
  | 'control tokens'
  | 'trained share'
  | 'exported template'

/** One finding. 'error': training would teach something wrong. 'warning': it may. 'ok': looked at and found right. */
export interface Finding {
  check: Check
  verdict: 'ok' | 'warning' | 'error'
  /** A sentence: what was found, where, and what to do. */
  detail: string
}

export interface Patient {
  template: ChatTemplate
  tokenizer: Tokenizer
  /** A sample of what training sees: a few hundred conversations show what there is to see. */
  rows: readonly SeenConversation[]
  /** What became of all rows that were looked at. */
  counts: { rows: number; dropped: readonly { reason: string; count: number; examples: readonly string[] }[] }
  options: WeightOptions
  /** Rows of the embedding matrix by id; without it untrained and equal control tokens cannot be told. */
  embedding?: EmbeddingReader | undefined
}

/** Trained shares outside these are unusual for conversations. */
const SHARE = { least: 0.01, most: 0.95 }

/**
 * One finding per check, in the order of Check; 'control tokens' only with `embedding`, and only the first and the trained
 * share where no row is left to look at.
 */
export async function templateDoctor(patient: Patient): Promise<Finding[]> {
  const { rows, tokenizer, embedding } = patient
  if (rows.length === 0) return [rendering(patient), trainedShare(patient)]
  const findings = [
    rendering(patient),
    stopTokens(patient),
    bos(patient),
    generationPrompt(patient),
    toolCalls(patient),
    trainedShare(patient),
    exportedTemplate(patient),
  ]
  if (embedding) {
    const ids = rows.flatMap(({ pieces }) => pieces.map(({ kept }) => kept.ids))
    const finding = await examineControlTokens(ids, tokenizer, embedding)
    findings.splice(5, 0, { check: 'control tokens', ...finding })
  }
  return findings
}

/** The worst verdict of a list. */
export function verdictOf(findings: readonly Finding[]): Finding['verdict'] {
  const has = (verdict: Finding['verdict']) => findings.some((finding) => finding.verdict === verdict)
  return has('error') ? 'error' : has('warning') ? 'warning' : 'ok'
}

/** What preparation checks on every row, so that a run takes no notice of what the sample says of it. */
const CHECKED_BEFORE: readonly Check[] = ['rendering', 'tool calls', 'trained share']

/** The findings that a run acts on: errors end it, warnings are told. */
export function actedOn(findings: readonly Finding[]): Finding[] {
  return findings.filter(({ check, verdict }) => verdict !== 'ok' && !CHECKED_BEFORE.includes(check))
}

/** The turns of a piece that carry loss, as far as the cut has left them. */
function trainedTurns({ kept }: SeenPiece): TurnTokens[] {
  return kept.turns.filter(({ weight }) => weight > 0)
}

interface Fault {
  row: Conversation
  fault: string
}

/** The finding for the rows that have a fault, or the one for none. */
function judge(check: Check, verdict: 'warning' | 'error', faults: readonly Fault[], sound: string): Finding {
  const first = faults[0]
  if (!first) return { check, verdict: 'ok', detail: sound }
  const more = faults.length > 1 ? ` (and ${faults.length - 1} more)` : ''
  return { check, verdict, detail: `${place(first.row.source)}${more}: ${first.fault}` }
}

function rendering({ counts, rows }: Patient): Finding {
  const check = 'rendering'
  const malformed = counts.dropped.find(({ reason }) => reason === MALFORMED)
  if (!malformed) {
    const detail = `each of the ${counts.rows} rows that were looked at renders and tokenises`
    return {
      check,
      verdict: 'ok',
      detail: counts.rows === 1 ? 'the row that was looked at renders and tokenises' : detail,
    }
  }
  const detail = `${malformed.count} of ${counts.rows} rows that were looked at are left out: ${malformed.examples[0]}`
  return { check, verdict: rows.length === 0 ? 'error' : 'warning', detail }
}

/** Each trained turn must end in a stop token that carries loss. One that onTooLong has cut off was to be cut off. */
function stopTokens({ rows, template }: Patient): Finding {
  const check = 'stop token'
  const stops = new Map(template.stopTokens.map(({ id, text }) => [id, text]))
  const untaught: Fault[] = []
  const cutOff: Fault[] = []
  const found = new Set<string>()
  let count = 0
  for (const { row, pieces } of rows) {
    for (const piece of pieces) {
      const { ids, weights } = piece.kept
      for (const { first, end, turn } of trainedTurns(piece)) {
        count++
        // Generation blocks may hold white space after it.
        let last = end - 1
        while (last > first && !(stops.has(ids[last]!) && weights[last]! > 0)) last--
        const stop = weights[last]! > 0 ? stops.get(ids[last]!) : undefined
        if (stop !== undefined) found.add(stop)
        else if (isCutAt(piece, end))
          cutOff.push({ row, fault: `messages[${turn}] has lost its stop token to onTooLong` })
        else untaught.push({ row, fault: `messages[${turn}] trains no stop token` })
      }
    }
  }
  const consequence = ': the model would not learn to end such a turn'
  if (untaught.length > 0) return judge(check, 'error', untaught.map(withConsequence(consequence)), '')
  if (cutOff.length > 0) return judge(check, 'warning', cutOff.map(withConsequence(consequence)), '')
  if (count === 0) return { check, verdict: 'ok', detail: 'no assistant turn trains' }
  return { check, verdict: 'ok', detail: `each of ${turns(count)} includes its stop token (${[...found].join(', ')})` }
}

function withConsequence(consequence: string): (fault: Fault) => Fault {
  return ({ row, fault }) => ({ row, fault: fault + consequence })
}

/** Whether what followed token `end` was cut off. */
function isCutAt({ kept, whole, lostBefore }: SeenPiece, end: number): boolean {
  return end === kept.ids.length && lostBefore + end < whole.ids.length
}

function turns(count: number): string {
  return `${count} trained ${count === 1 ? 'turn' : 'turns'}`
}

/** Twice is refused row by row; never, where the model's tokenizer adds it, is only seen here. */
function bos({ rows, tokenizer }: Patient): Finding {
  const check = 'bos'
  const token = tokenizer.bos
  if (!token) return { check, verdict: 'ok', detail: 'the tokenizer has none' }
  const pieces = rows.flatMap(({ row, pieces }) =>
    pieces.map(({ whole }) => ({ row, starts: whole.ids[0] === token.id })),
  )
  const without = pieces.filter(({ starts }) => !starts)
  const fault = `does not begin with ${token.text}, with which the tokenizer starts every text; the template should write it`
  if (tokenizer.addsBos && without.length > 0)
    return judge(
      check,
      'warning',
      without.map(({ row }) => ({ row, fault })),
      '',
    )
  const detail =
    without.length === 0
      ? `every text begins with ${token.text}, once`
      : without.length === pieces.length
        ? `no text begins with ${token.text}; the tokenizer adds none either`
        : `${pieces.length - without.length} of ${pieces.length} texts begin with ${token.text}; the tokenizer adds none`
  return { check, verdict: 'ok', detail }
}

/** What inference shows the model before a turn must be what stands before the trained text. */
function generationPrompt({ rows, template }: Patient): Finding {
  const check = 'generation prompt'
  // What tags mark begins where they say, whatever stands before it.
  const missing = template.tagged ? undefined : missingGenerationPrompt(template)
  if (missing !== undefined) {
    const detail =
      `the template adds nothing when it is asked for one, so that ${JSON.stringify(missing)} before each answer is trained ` +
      'and the model has to write it itself: give the template a branch for add_generation_prompt'
    return { check, verdict: 'warning', detail }
  }
  const faults: Fault[] = []
  let count = 0
  let opening = 0
  for (const { row, pieces } of rows) {
    const { messages } = asRendered(template, row)
    for (const piece of pieces) {
      const { text, spans } = piece.text!.weighted
      for (const { turn } of trainedTurns(piece)) {
        if (turn === 0) opening++
        if (turn === undefined || turn === 0) continue
        count++
        const start = spans.find((span) => span.turn === turn)!.start
        const before = messages.slice(0, turn)
        const prompt = attempt(() => template.render(before, { tools: row.tools, addGenerationPrompt: true }))
        if (prompt === undefined || prompt === text.slice(0, start)) continue
        const at = text.startsWith(prompt)
          ? `${JSON.stringify(text.slice(prompt.length, start))} stands between them`
          : 'they differ'
        faults.push({
          row,
          fault: `before messages[${turn}] inference writes ${JSON.stringify(prompt.slice(-40))}, training ${JSON.stringify(text.slice(0, start).slice(-40))}: ${at}`,
        })
      }
    }
  }
  const others =
    opening > 0 ? `, except for ${opening} that ${opening === 1 ? 'opens its' : 'open their'} conversation` : ''
  const sound = count > 0 ? `stands before each of ${turns(count + opening)}${others}` : `no trained turn follows one`
  return judge(check, 'warning', faults, sound)
}

/** A row with calls that the template leaves out has not come this far. */
function toolCalls({ rows }: Patient): Finding {
  const calls = rows
    .flatMap(({ row }) => row.messages)
    .reduce((sum, { tool_calls: made }) => sum + (made?.length ?? 0), 0)
  const detail = calls > 0 ? `each of ${calls} is written` : 'none in the rows that train'
  return { check: 'tool calls', verdict: 'ok', detail }
}

function trainedShare({ rows, counts, options }: Patient): Finding {
  const check = 'trained share'
  if (rows.length === 0) {
    const lost = counts.dropped.map(({ reason, count }) => `${count} ${reason}`).join(', ')
    return { check, verdict: 'error', detail: `no row that was looked at can train: ${lost}` }
  }
  let tokens = 0
  let trained = 0
  for (const { pieces } of rows) {
    for (const { kept } of pieces) {
      tokens += kept.weights.length
      trained += kept.weights.reduce((count, weight) => count + (weight > 0 ? 1 : 0), 0)
    }
  }
  const share = trained / tokens
  const detail = `${(100 * share).toFixed(1)} % of ${tokens} tokens carry loss`
  const asked = options.trainOn === 'all' || options.promptLossWeight > 0
  if (share < SHARE.least)
    return { check, verdict: 'warning', detail: `${detail}: hardly any; are the prompts meant to be that long?` }
  if (share > SHARE.most && !asked) {
    return {
      check,
      verdict: 'warning',
      detail: `${detail}: nearly all; does the template mark the turns of the assistant only?`,
    }
  }
  return { check, verdict: 'ok', detail }
}

/** What the checkpoint gets: the model's own templates where they were used as they are, else the default one alone. */
function exportedTemplate({ rows, template, tokenizer }: Patient): Finding {
  const untouched = template.source === tokenizer.chatTemplates.get('default')
  const alone = new ChatTemplate(tokenizer, {
    name: 'exported',
    sources: untouched ? tokenizer.chatTemplates : new Map([['default', template.source]]),
    now: template.now,
  })
  const faults = rows.flatMap(({ row }) => {
    const [here, there] = [template, alone].map((each) =>
      attempt(() => each.render(row.messages, { tools: row.tools })),
    )
    return here === there
      ? []
      : [{ row, fault: 'the template in the checkpoint renders this row differently from training' }]
  })
  return judge('exported template', 'error', faults, 'renders what training renders')
}

function attempt(render: () => string): string | undefined {
  try {
    return render()
  } catch {
    return undefined
  }
}
