/** How messages name the place of a row. */
import { containerOf } from './containers/names.ts'
import type { Source } from './conversation.ts'

/** `file:line`; where a file has no lines that an editor would show, `file row 12`. */
export function place({ file, line }: Source): string {
  const container = containerOf(file)
  return container === 'json' || container === 'parquet' ? `${file} row ${line}` : `${file}:${line}`
}
