/** The pairs of data files, every row checked. */
import { resolve } from 'node:path'
import { describeProblem } from '../data/bad-rows.ts'
import { readContainer } from '../data/containers/index.ts'
import { hasTextCells } from '../data/containers/names.ts'
import { resolveFiles } from '../data/paths.ts'
import { RowProblem } from '../data/rows.ts'
import { TunesmithError } from '../errors.ts'
import { type PairLayout, type PreferencePair, readPair } from './pair.ts'

/** What stands for the file where pairs are given as objects; `line` is then their number. */
const GIVEN = 'pairs'

/**
 * @param pairs path or glob, a list of them, or the rows themselves
 * @throws TunesmithError `ERR_BAD_ROW` for the first row that is no pair, `ERR_EMPTY_DATASET`; errors of resolveFiles and
 * readContainer
 */
export async function readPairs(pairs: string | readonly (string | object)[]): Promise<PreferencePair[]> {
  const found: PreferencePair[] = []
  let first: PairLayout | undefined
  const add = (value: unknown, file: string, line: number, problem?: RowProblem) => {
    const source = { file, line }
    try {
      if (problem) throw problem
      const { pair, layout } = readPair(value, source, { textCells: file !== GIVEN && hasTextCells(file), first })
      first ??= layout
      found.push(pair)
    } catch (error) {
      if (!(error instanceof RowProblem)) throw error
      throw new TunesmithError('ERR_BAD_ROW', describeProblem(source, error), { cause: error })
    }
  }
  const entries = [pairs].flat()
  const rows = entries.filter((entry) => typeof entry !== 'string')
  for (const [index, row] of rows.entries()) add(row, GIVEN, index + 1)
  const paths = entries.filter((entry) => typeof entry === 'string')
  for (const { path } of await resolveFiles(paths.map((path) => ({ path: resolve(path), format: 'auto' }))))
    for await (const batch of readContainer(path))
      for (const { value, line, problem } of batch) add(value, path, line, problem)
  if (found.length === 0) {
    const where = paths.length === 0 ? 'The list of pairs' : paths.join(', ')
    throw new TunesmithError('ERR_EMPTY_DATASET', `${where} is empty: there is no pair to score`)
  }
  return found
}
