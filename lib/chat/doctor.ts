/**
 * The template doctor: does this template, with this tokenizer and these rows, train what inference will ask for? Runs
 * before training, and on request. It looks at what was rendered and tokenised, not at the template's source.
 */
import type { Conversation } from '../data/conversation.ts'
import { RowProblem } from '../data/rows.ts'
import { TunesmithError } from '../errors.ts'
import { type EmbeddingReader, examineControlTokens } from './doctor-embedding.ts'
import { ChatTemplate } from './template.ts'
import type { Tokenizer } from './tokenizer.ts'
import { checkCallsRendered, withEmptyContent } from './tool-calls.ts'
import {
  type WeightedText,
  type WeightedTokens,
  type WeightOptions,
  weighTokens,
  weightedConversation,
} from './weights.ts'

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
  /** A sample: a few hundred rows show what there is to see. */
  rows: readonly Conversation[]
  options: WeightOptions
  /** Rows of the embedding matrix by id; without it untrained and equal control tokens cannot be told. */
  embedding?: EmbeddingReader | undefined
}

/** Trained shares outside these are unusual for conversations. */
const SHARE = { least: 0.01, most: 0.95 }

/** One finding per check, in the order of Check; 'control tokens' only with `embedding`. Never throws for a bad row. */
export async function templateDoctor(patient: Patient): Promise<Finding[]> {
  const examined = await examine(patient)
  const findings = [
    rendering(examined, patient.rows.length),
    stopTokens(examined, patient),
    bos(examined, patient),
    generationPrompt(examined, patient),
    toolCalls(examined, patient),
    trainedShare(examined, patient),
    exportedTemplate(examined, patient),
  ]
  if (patient.embedding) {
    const ids = examined.flatMap(({ tokens }) => tokens.map((each) => each.ids))
    const finding = await examineControlTokens(ids, patient.tokenizer, patient.embedding)
    findings.splice(5, 0, { check: 'control tokens', ...finding })
  }
  return findings
}

/** The worst verdict of a list. */
export function verdictOf(findings: readonly Finding[]): Finding['verdict'] {
  const has = (verdict: Finding['verdict']) => findings.some((finding) => finding.verdict === verdict)
  return has('error') ? 'error' : has('warning') ? 'warning' : 'ok'
}

/** A row with its texts and tokens, or why there are none. */
interface Examined {
  row: Conversation
  texts: WeightedText[]
  tokens: WeightedTokens[]
  problem?: string
}

async function examine(patient: Patient): Promise<Examined[]> {
  const examined: Examined[] = []
  for (const row of patient.rows) {
    try {
      examined.push(await examineRow(row, patient))
    } catch (error) {
      if (!(error instanceof RowProblem || error instanceof TunesmithError)) throw error
      examined.push({ row, texts: [], tokens: [], problem: error.message })
    }
  }
  return examined
}

/** As preparation does it: with empty content where the template cannot render a turn that has none. */
async function examineRow(row: Conversation, patient: Patient): Promise<Examined> {
  const { template, tokenizer, options } = patient
  let texts: WeightedText[]
  try {
    texts = weightedConversation(template, row, options)
  } catch (error) {
    const filled = error instanceof RowProblem ? withEmptyContent(row) : undefined
    if (!filled) throw error
    return examineRow(filled, patient)
  }
  const encodings = await tokenizer.encodeBatch(texts.map(({ text }) => text))
  const tokens = texts.map((text, index) => weighTokens(text, encodings[index]!, tokenizer))
  return { row, texts, tokens }
}

function placeOf({ source }: Conversation): string {
  return `${source.file}:${source.line}`
}

/** The finding for the rows that have a fault, or the one for none. */
function judge(
  check: Check,
  verdict: 'warning' | 'error',
  faults: readonly { row: Conversation; fault: string }[],
  sound: string,
): Finding {
  const first = faults[0]
  if (!first) return { check, verdict: 'ok', detail: sound }
  const more = faults.length > 1 ? ` (and ${faults.length - 1} more)` : ''
  return { check, verdict, detail: `${placeOf(first.row)}${more}: ${first.fault}` }
}

function rendering(examined: readonly Examined[], rows: number): Finding {
  const faults = examined.flatMap(({ row, problem }) => (problem === undefined ? [] : [{ row, fault: problem }]))
  return judge('rendering', 'error', faults, `all ${rows} rows that were looked at render and tokenise`)
}

/** Each trained turn must end in a stop token that carries loss. */
function stopTokens(examined: readonly Examined[], { template }: Patient): Finding {
  const stops = new Map(template.stopTokens.map(({ id, text }) => [id, text]))
  const faults: { row: Conversation; fault: string }[] = []
  let count = 0
  for (const { row, tokens } of examined) {
    for (const { ids, weights, turns } of tokens) {
      for (const { first, end, weight, turn } of turns) {
        if (weight === 0) continue
        count++
        // Generation blocks may hold white space after it.
        let last = end - 1
        while (last > first && !(stops.has(ids[last]!) && weights[last]! > 0)) last--
        if (stops.has(ids[last]!) && weights[last]! > 0) continue
        faults.push({ row, fault: `messages[${turn}] trains no stop token: the model would not learn to end its turn` })
      }
    }
  }
  const names = [...stops.values()].join(', ')
  const sound = count > 0 ? `each of ${count} trained turns includes its stop token (${names})` : 'no turn is trained'
  return judge('stop token', 'error', faults, sound)
}

/** Twice is refused row by row; never, where the model's tokenizer adds it, is only seen here. */
function bos(examined: readonly Examined[], { tokenizer }: Patient): Finding {
  const token = tokenizer.bos
  if (!token || !tokenizer.addsBos)
    return { check: 'bos', verdict: 'ok', detail: 'the tokenizer starts no text with bos' }
  const faults = examined.flatMap(({ row, tokens }) =>
    tokens.some(({ ids }) => ids[0] !== token.id)
      ? [
          {
            row,
            fault: `does not begin with ${token.text}, with which the tokenizer starts every text; the template should write it`,
          },
        ]
      : [],
  )
  return judge('bos', 'warning', faults, `every text begins with ${token.text}, once`)
}

/** What inference shows the model before a turn must be what stands before the trained text. */
function generationPrompt(examined: readonly Examined[], { template }: Patient): Finding {
  const faults: { row: Conversation; fault: string }[] = []
  let turns = 0
  for (const { row, texts } of examined) {
    for (const { text, spans } of texts) {
      const seen = new Set<number>()
      for (const { start, turn } of spans) {
        if (turn === undefined || turn === 0 || seen.has(turn)) continue
        seen.add(turn)
        turns++
        const prompt = template.render(row.messages.slice(0, turn), { tools: row.tools, addGenerationPrompt: true })
        if (prompt === text.slice(0, start)) continue
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
  return judge('generation prompt', 'warning', faults, `stands before each of ${turns} trained turns`)
}

/** A template that knows no tools drops calls in silence, and writes None where there is no other content. */
function toolCalls(examined: readonly Examined[], { template }: Patient): Finding {
  const faults: { row: Conversation; fault: string }[] = []
  let calls = 0
  for (const { row, problem } of examined) {
    if (problem !== undefined) continue
    calls += row.messages.reduce((sum, { tool_calls: made }) => sum + (made?.length ?? 0), 0)
    try {
      checkCallsRendered(template, row)
    } catch (error) {
      if (!(error instanceof RowProblem)) throw error
      faults.push({ row, fault: `${error.field}: ${error.message}` })
    }
  }
  return judge(
    'tool calls',
    'error',
    faults,
    calls > 0 ? `each of ${calls} is written` : 'none in the rows that were looked at',
  )
}

function trainedShare(examined: readonly Examined[], { options }: Patient): Finding {
  let tokens = 0
  let trained = 0
  for (const { tokens: pieces } of examined) {
    for (const { weights } of pieces) {
      tokens += weights.length
      trained += weights.reduce((count, weight) => count + (weight > 0 ? 1 : 0), 0)
    }
  }
  const check = 'trained share'
  if (trained === 0) return { check, verdict: 'error', detail: `none of ${tokens} tokens carries loss` }
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
function exportedTemplate(examined: readonly Examined[], { template, tokenizer }: Patient): Finding {
  const untouched = template.source === tokenizer.chatTemplates.get('default')
  const alone = new ChatTemplate(tokenizer, {
    name: 'exported',
    sources: untouched ? tokenizer.chatTemplates : new Map([['default', template.source]]),
    now: template.now,
  })
  const faults = examined.flatMap(({ row, problem }) => {
    if (problem !== undefined) return []
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
