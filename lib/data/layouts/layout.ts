/** What a row layout is. One file per layout beside this one; index.ts lists them. */
import type { Row, Source } from '../conversation.ts'
import type { Json } from '../rows.ts'

export type LayoutName = 'messages' | 'sharegpt' | 'alpaca' | 'prompt-completion' | 'text' | 'tokens'

/** Layout of a file's rows; 'auto' is told from the first ones. */
export type RowFormat = 'auto' | LayoutName

export interface Layout {
  name: LayoutName
  /** As people call it. */
  title: string
  /** The key without which a row is not of this layout. */
  key: string
  /** What of the row shows the layout, e.g. `"conversations" with "from" and "value"`; undefined where nothing does. */
  evidence(row: Json): string | undefined
  /** Keys whose values are JSON where a table's cell holds them as text. */
  jsonKeys: readonly string[]
  /** @throws RowProblem */
  convert(row: Json, source: Source): Row
}
