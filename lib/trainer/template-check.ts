/** The template doctor as a run meets it: on the first conversations of the training data, before anything is trained. */
import type { PrepareOptions } from '../batch/prepared.ts'
import { type Check, type Finding, templateDoctor } from '../chat/doctor.ts'
import type { EmbeddingReader } from '../chat/doctor-embedding.ts'
import type { ChatTemplate } from '../chat/template.ts'
import type { Tokenizer } from '../chat/tokenizer.ts'
import { embeddingRows } from '../checkpoint/embedding.ts'
import type { Checkpoint } from '../checkpoint/open.ts'
import { BadRows } from '../data/bad-rows.ts'
import { type Conversation, isConversation } from '../data/conversation.ts'
import { resolveFiles } from '../data/paths.ts'
import { readRows } from '../data/read.ts'
import { TunesmithError, type Warning } from '../errors.ts'

/** What preparation has checked on every row. */
const CHECKED_BEFORE: readonly Check[] = ['rendering', 'tool calls', 'trained share']

/** Conversations that are looked at. */
const SAMPLE_ROWS = 64

/**
 * What the doctor finds. Of embeddings only where there are weights to start from.
 *
 * @throws TunesmithError as readRows
 */
export async function examineTemplate(
  options: PrepareOptions,
  tokenizer: Tokenizer,
  template: ChatTemplate,
  checkpoint: Checkpoint | undefined,
): Promise<Finding[]> {
  const rows = await firstConversations(options)
  return templateDoctor({
    template,
    tokenizer,
    rows,
    options,
    embedding: embeddingReader(checkpoint),
  })
}

/** Undefined where there are no weights. */
export function embeddingReader(checkpoint: Checkpoint | undefined): EmbeddingReader | undefined {
  return checkpoint && ((ids) => embeddingRows(checkpoint, ids))
}

/**
 * The findings as a run takes them: errors end it, warnings are told. Rows that do not render, or not all of their tool
 * calls, are for data.onBadRow to decide, and how much is trained has been checked over all rows.
 *
 * @throws TunesmithError `ERR_TEMPLATE_DOCTOR`
 */
export function judgeFindings(findings: readonly Finding[]): Warning[] {
  const seen = findings.filter(({ check }) => !CHECKED_BEFORE.includes(check))
  const errors = seen.filter(({ verdict }) => verdict === 'error')
  if (errors.length > 0) {
    const list = errors.map(({ check, detail }) => `${check}: ${detail}`).join('\n')
    throw new TunesmithError(
      'ERR_TEMPLATE_DOCTOR',
      `The chat template does not fit the data or the tokenizer.\n${list}`,
    )
  }
  return seen
    .filter(({ verdict }) => verdict === 'warning')
    .map(({ check, detail }) => ({ code: 'WARN_TEMPLATE', message: `Chat template, ${check}: ${detail}` }))
}

async function firstConversations({ data }: PrepareOptions): Promise<Conversation[]> {
  const found: Conversation[] = []
  const report = { rows: 0, bad: new BadRows('skip'), formats: [], warnings: [] }
  for await (const rows of readRows(await resolveFiles(data.train), report)) {
    for (const row of rows) if (isConversation(row) && found.length < SAMPLE_ROWS) found.push(row)
    if (found.length >= SAMPLE_ROWS) break
  }
  return found
}
