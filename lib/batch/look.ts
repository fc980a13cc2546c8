/** The first rows of the training data led through the preparation that training makes of all of them. */
import type { SeenRow } from '../chat/seen.ts'
import type { ChatTemplate } from '../chat/template.ts'
import type { Tokenizer } from '../chat/tokenizer.ts'
import type { FileFormat } from '../data/read.ts'
import type { Warning } from '../errors.ts'
import { Pass } from './pass.ts'
import type { PrepareOptions } from './prepared.ts'
import type { PassCounts } from './tally.ts'

export interface Look {
  /** The rows that became examples. */
  seen: SeenRow[]
  /** What became of the rows looked at. */
  counts: PassCounts
  formats: FileFormat[]
  warnings: Warning[]
  /** Absent where none is a conversation. */
  template?: ChatTemplate
}

/** @throws TunesmithError as prepare() */
export async function lookAtRows(
  options: PrepareOptions,
  tokenizer: Tokenizer,
  rows: number,
  signal?: AbortSignal,
): Promise<Look> {
  const seen: SeenRow[] = []
  const pass = new Pass(
    { ...options, data: { ...options.data, eval: [] } },
    tokenizer,
    { ...(signal && { signal }) },
    { rows, onRow: (row) => seen.push(row) },
  )
  const { counts, formats, warnings } = await pass.run()
  return { seen, counts, formats, warnings, ...(pass.template && { template: pass.template }) }
}
