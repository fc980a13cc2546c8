/** The rows of a file of any kind. */
import { readText } from './bytes.ts'
import { readCsv } from './csv.ts'
import { readJson } from './json.ts'
import { readJsonLines } from './jsonl.ts'
import { containerOf } from './names.ts'
import { readParquet } from './parquet.ts'
import type { RawRow } from './raw-row.ts'

/**
 * The rows of a file as it holds them, in batches.
 *
 * @throws TunesmithError `ERR_DATA_READ`, `ERR_DATA_FORMAT`
 */
export function readContainer(path: string): AsyncGenerator<RawRow[]> {
  switch (containerOf(path)) {
    case 'json':
      return readJson(readText(path), path)
    case 'csv':
      return readCsv(readText(path), path)
    case 'parquet':
      return readParquet(path)
    default:
      return readJsonLines(readText(path))
  }
}
