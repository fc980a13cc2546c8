/**
 * What training will see, row by row: the first rows go through the same pass that training makes of all of them, and
 * what comes out is kept with the bytes and the role of every token.
 */
import { countSupervised } from '../batch/example-set.ts'
import { lookAtRows } from '../batch/look.ts'
import type { DataCounts, PrepareOptions } from '../batch/prepared.ts'
import { type Finding, templateDoctor } from '../chat/doctor.ts'
import type { EmbeddingReader } from '../chat/doctor-embedding.ts'
import { isSeenConversation, type SeenRow } from '../chat/seen.ts'
import type { ChatTemplate } from '../chat/template.ts'
import { TokenBytes } from '../chat/token-bytes.ts'
import type { Tokenizer } from '../chat/tokenizer.ts'
import type { Source } from '../data/conversation.ts'
import type { FileFormat } from '../data/read.ts'
import { TunesmithError, type Warning } from '../errors.ts'
import { rolesOfTokens, type Turn } from './roles.ts'
import { tokenText } from './text.ts'

export interface Preview {
  /** One per conversation, several of one source where the template rewrites history. */
  examples: PreviewExample[]
  /** Over the examples, in the order of their first token. */
  roles: RoleTotal[]
  /** Where the chat template comes from: 'model', a built-in name or a file; 'none' for plain text. */
  template: string
  /** What the template doctor says of the template with these rows; empty where none is a conversation. */
  doctor: Finding[]
  /** As what each file was read, and why. */
  formats: FileFormat[]
  /** What became of the rows looked at. */
  counts: Omit<DataCounts, 'used' | 'evaluated'>
  warnings: Warning[]
}

export interface RoleTotal {
  role: string
  tokens: number
  /** Of those, tokens that carry loss. */
  supervisedTokens: number
}

export interface PreviewExample {
  source: Source
  /** From 1; a conversation that had to be split has several. */
  piece: number
  pieces: number
  tokens: PreviewToken[]
  /** Of `tokens`, those that carry loss. */
  supervisedTokens: number
}

export interface PreviewToken {
  id: number
  /** Loss weight; 0 is context. */
  weight: number
  /** What the token spells; a byte-level token may be a piece of a character. */
  bytes: Uint8Array
  /** The same as a preview shows it: white space and pieces of characters visible, without line breaks. */
  text: string
  /** A control token. */
  special: boolean
  /** Whose turn it belongs to. */
  turn: Turn
}

/**
 * Leads the first `rows` rows of the training data through the preparation.
 *
 * @throws TunesmithError as prepare()
 */
export async function previewData(
  options: PrepareOptions,
  tokenizer: Tokenizer,
  rows: number,
  { signal, embedding }: { signal?: AbortSignal | undefined; embedding?: EmbeddingReader | undefined } = {},
): Promise<Preview> {
  const { seen, counts, formats, warnings, template } = await lookAtRows(options, tokenizer, rows, signal)
  const bytes = new TokenBytes(tokenizer)
  const special = new Set(tokenizer.added.filter((token) => token.special).map(({ id }) => id))
  const describe = (id: number, weight: number, turn: Turn): PreviewToken => {
    const spelt = bytes.of(id)
    return { id, weight, bytes: spelt, text: tokenText(spelt), special: special.has(id), turn }
  }
  const examples = seen.flatMap((row) => examplesOf(row, template, describe))
  return {
    examples,
    roles: roleTotals(examples),
    template: template?.name ?? 'none',
    doctor: template
      ? await templateDoctor({ template, tokenizer, rows: seen.filter(isSeenConversation), counts, options, embedding })
      : [],
    formats,
    counts,
    warnings,
  }
}

function examplesOf(
  { row, pieces }: SeenRow,
  template: ChatTemplate | undefined,
  describe: (id: number, weight: number, turn: Turn) => PreviewToken,
): PreviewExample[] {
  return pieces.map((piece, index) => {
    const { example } = piece
    const turns = rolesOfTokens(row, piece, template)
    return {
      source: example.source,
      piece: index + 1,
      pieces: pieces.length,
      tokens: Array.from(example.ids, (id, i) => describe(id, example.weights[i]!, turns[i]!)),
      supervisedTokens: countSupervised(example.weights),
    }
  })
}

function roleTotals(examples: readonly PreviewExample[]): RoleTotal[] {
  const totals = new Map<string, RoleTotal>()
  for (const { tokens } of examples) {
    for (const [index, { turn, weight }] of tokens.entries()) {
      const total = totals.get(turn.role) ?? { role: turn.role, tokens: 0, supervisedTokens: 0 }
      total.tokens++
      if (index > 0 && weight > 0) total.supervisedTokens++
      totals.set(turn.role, total)
    }
  }
  return [...totals.values()]
}

/** @throws TunesmithError `ERR_INVALID_OPTION` */
export function checkRows(rows: number): void {
  if (Number.isSafeInteger(rows) && rows > 0) return
  throw new TunesmithError('ERR_INVALID_OPTION', `a preview shows a whole number of rows from 1 up; found ${rows}`)
}
