/** The first rows of several sources in turn, so that a look at a mixture sees all of it. */
import { TunesmithError } from '../errors.ts'
import type { Row } from './conversation.ts'
import { type DataFile, type ReadReport, readRows } from './read.ts'

/**
 * Up to `count` valid rows: the first of each source, then the second of each, until all are read. In `report` rows that
 * were read beyond do not count.
 *
 * @param sources the files of each source, which are read one after another
 * @throws TunesmithError as readRows
 */
export async function firstRows(
  sources: readonly (readonly DataFile[])[],
  count: number,
  report: ReadReport,
): Promise<Row[]> {
  const sample: Row[] = []
  let open = sources.map((files) => new Source(files, report))
  let empty: TunesmithError | undefined
  try {
    while (open.length > 0 && sample.length < count) {
      const ended = new Set<Source>()
      for (const source of open) {
        if (sample.length === count) break
        const row = await source.next().catch((error) => {
          // Of several sources one may be without rows.
          if (!(error instanceof TunesmithError && error.code === 'ERR_EMPTY_DATASET')) throw error
          empty ??= error
          return undefined
        })
        if (row) sample.push(row)
        else ended.add(source)
      }
      open = open.filter((source) => !ended.has(source))
    }
  } finally {
    for (const source of open) report.rows -= await source.close()
  }
  if (sample.length === 0 && empty) throw empty
  return sample
}

class Source {
  readonly #batches: AsyncGenerator<Row[]>
  #batch: readonly Row[] = []
  #at = 0

  constructor(files: readonly DataFile[], report: ReadReport) {
    this.#batches = readRows(files, report)
  }

  /** The next row; undefined after the last. */
  async next(): Promise<Row | undefined> {
    while (this.#at === this.#batch.length) {
      const batch: IteratorResult<Row[]> = await this.#batches.next()
      if (batch.done) return undefined
      this.#batch = batch.value
      this.#at = 0
    }
    return this.#batch[this.#at++]
  }

  /** Ends the reading; returns how many rows were read and not given. */
  async close(): Promise<number> {
    await this.#batches.return(undefined)
    return this.#batch.length - this.#at
  }
}
