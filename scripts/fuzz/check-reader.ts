/** What must hold of the readers for any file at all. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { BadRows } from '../../lib/data/bad-rows.ts'
import { isConversation, isTokenRow, type Row } from '../../lib/data/conversation.ts'
import { type ReadReport, readRows } from '../../lib/data/read.ts'
import { TunesmithError } from '../../lib/errors.ts'
import type { Input } from './reader-inputs.ts'

const REFUSALS = ['ERR_DATA_FORMAT', 'ERR_DATA_READ', 'ERR_EMPTY_DATASET']

export type Outcome = 'read' | 'refused'

/**
 * Reads `input` with bad rows skipped.
 *
 * @throws Error that says which rule was broken: a failure that is no TunesmithError with a code of the readers, rows that
 * were neither given nor counted as bad, or a row that is not what its type says.
 */
export async function checkReader(input: Input, folder: string): Promise<Outcome> {
  const path = join(folder, input.name)
  writeFileSync(path, input.content)
  const report: ReadReport = { rows: 0, bad: new BadRows('skip'), formats: [], warnings: [] }
  let valid = 0
  let refused: TunesmithError | undefined
  try {
    for await (const batch of readRows([{ path, format: input.format }], report)) {
      for (const row of batch) checkRow(row, path)
      valid += batch.length
    }
  } catch (error) {
    if (!(error instanceof TunesmithError) || !REFUSALS.includes(error.code)) throw error
    if (!error.message.includes(path)) throw new Error(`The message does not name the file: ${error.message}`)
    refused = error
  }
  if (refused && refused.code !== 'ERR_EMPTY_DATASET') {
    // Preference data is refused whole; every other undamaged file has rows that can be told apart.
    if (input.rows !== undefined && !refused.message.includes('preference data')) {
      throw new Error(`A whole file was refused: ${refused.message}`)
    }
    return 'refused'
  }
  if (valid + report.bad.count !== report.rows) {
    throw new Error(`${report.rows} rows, but ${valid} valid and ${report.bad.count} bad ones`)
  }
  if (input.rows !== undefined && input.rows !== report.rows) {
    throw new Error(`The file has ${input.rows} rows, but ${report.rows} were found`)
  }
  return 'read'
}

function checkRow(row: Row, path: string): void {
  const { file, line } = row.source
  if (file !== path || !(Number.isSafeInteger(line) && line > 0))
    throw new Error(`A row without a place: ${file}:${line}`)
  if (isTokenRow(row)) {
    if (row.ids.length === 0) throw new Error('A row of no tokens')
    if (row.weights && row.weights.length !== row.ids.length) throw new Error('Weights of another length than the ids')
    if (row.weights?.some((weight) => !(weight >= 0 && Number.isFinite(weight))))
      throw new Error('A weight that is none')
  } else if (isConversation(row)) {
    if (!row.messages.some(({ role }) => role === 'assistant')) throw new Error('A conversation without an answer')
    for (const { content } of row.messages) checkText(content ?? '')
  } else {
    if (row.text.trim() === '') throw new Error('A row of blank text')
    if (row.promptLength !== undefined && row.promptLength >= row.text.length)
      throw new Error('A row without a completion')
    checkText(row.text)
  }
}

function checkText(text: string): void {
  if (/\p{Surrogate}/u.test(text)) throw new Error('A lone surrogate went through')
}
