/** The template doctor as a run meets it: on the first conversations of the training data, before anything is trained. */
import { lookAtRows } from '../batch/look.ts'
import type { PrepareOptions } from '../batch/prepared.ts'
import { actedOn, type Finding, templateDoctor } from '../chat/doctor.ts'
import type { EmbeddingReader } from '../chat/doctor-embedding.ts'
import { isSeenConversation } from '../chat/seen.ts'
import type { Tokenizer } from '../chat/tokenizer.ts'
import { embeddingRows } from '../checkpoint/embedding.ts'
import type { Checkpoint } from '../checkpoint/open.ts'
import { TunesmithError, type Warning } from '../errors.ts'

/** Rows that are looked at. */
const SAMPLE_ROWS = 64

/**
 * What the doctor finds; nothing where the first rows hold no conversation. Of embeddings only where there are weights to
 * start from.
 *
 * @throws TunesmithError as prepare()
 */
export async function examineTemplate(
  options: PrepareOptions,
  tokenizer: Tokenizer,
  checkpoint: Checkpoint | undefined,
  signal?: AbortSignal,
): Promise<Finding[]> {
  const { seen, counts, template } = await lookAtRows(options, tokenizer, SAMPLE_ROWS, signal)
  if (!template) return []
  const rows = seen.filter(isSeenConversation)
  return templateDoctor({ template, tokenizer, rows, counts, options, embedding: embeddingReader(checkpoint) })
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
  const acted = actedOn(findings)
  const errors = acted.filter(({ verdict }) => verdict === 'error')
  if (errors.length > 0) {
    const list = errors.map(({ check, detail }) => `${check}: ${detail}`).join('\n')
    throw new TunesmithError(
      'ERR_TEMPLATE_DOCTOR',
      `The chat template does not fit the data or the tokenizer.\n${list}`,
    )
  }
  return acted
    .filter(({ verdict }) => verdict === 'warning')
    .map(({ check, detail }) => ({ code: 'WARN_TEMPLATE', message: `Chat template, ${check}: ${detail}` }))
}
