/**
 * `{"input_ids", "labels"? | "weights"?, "weight"?}`: rows that come tokenised. A label is its token's id, or -100 where
 * the token carries no loss (not shifted: the label of position i is the token at position i); a weight is a number from
 * 0 up.
 */
import type { TokenRow } from '../conversation.ts'
import { type Json, kind, optionalWeight, RowProblem, shown } from '../rows.ts'
import type { Layout } from './layout.ts'

const IGNORED = -100
const LARGEST_ID = 2 ** 31 - 1
/** What other trainers call the same; refused by name, because ignoring one would train on everything. */
const FOREIGN = ['assistant_masks', 'assistant_mask', 'completion_mask', 'loss_mask']

export const tokens: Layout = {
  name: 'tokens',
  title: 'tokenised',
  key: 'input_ids',
  jsonKeys: ['input_ids', 'labels', 'weights', 'attention_mask', 'weight'],
  evidence(row) {
    if (!('input_ids' in row)) return undefined
    const loss = ['labels', 'weights'].find((key) => row[key] !== undefined && row[key] !== null)
    return loss ? `"input_ids" with "${loss}"` : '"input_ids"'
  },
  convert(row, source): TokenRow {
    const ids = tokenIds(row.input_ids)
    refusePadding(row.attention_mask, ids.length)
    const weights = lossWeights(row, ids)
    const weight = optionalWeight(row.weight, 'weight')
    return { ids, ...(weights && { weights }), ...(weight !== undefined && { weight }), source }
  },
}

function tokenIds(value: unknown): Int32Array {
  const list = numbers(value, 'input_ids')
  if (list.length === 0) throw new RowProblem('input_ids', 'is an empty list; remove the row')
  const wrong = list.findIndex((id) => !(Number.isInteger(id) && id >= 0 && id <= LARGEST_ID))
  if (wrong >= 0) {
    throw new RowProblem(`input_ids[${wrong}]`, `expected a token id, an integer from 0 up, found ${list[wrong]}`)
  }
  return Int32Array.from(list)
}

function lossWeights(row: Json, ids: Int32Array): Float32Array | undefined {
  const given = (key: string) => row[key] !== undefined && row[key] !== null
  if (given('labels') && given('weights')) throw new RowProblem('weights', 'is given beside "labels"; keep one of them')
  if (given('weights')) {
    const weights = numbers(row.weights, 'weights')
    checkLength(weights, 'weights', ids.length)
    for (const [index, weight] of weights.entries()) optionalWeight(weight, `weights[${index}]`)
    return Float32Array.from(weights)
  }
  if (given('labels')) {
    const labels = numbers(row.labels, 'labels')
    checkLength(labels, 'labels', ids.length)
    const wrong = labels.findIndex((label, index) => label !== IGNORED && label !== ids[index])
    if (wrong >= 0) {
      throw new RowProblem(
        `labels[${wrong}]`,
        `is ${labels[wrong]}, but input_ids[${wrong}] is ${ids[wrong]}. A label is the id at its own position, or -100 ` +
          'for no loss; labels must not be shifted',
      )
    }
    return Float32Array.from(labels, (label) => (label === IGNORED ? 0 : 1))
  }
  const foreign = FOREIGN.find(given)
  if (foreign) throw new RowProblem(foreign, 'is not read; rename it to "weights", one number from 0 up per token')
  return undefined
}

function refusePadding(mask: unknown, length: number): void {
  if (mask === undefined || mask === null) return
  const values = numbers(mask, 'attention_mask')
  checkLength(values, 'attention_mask', length)
  const padded = values.findIndex((value) => value !== 1)
  if (padded < 0) return
  throw new RowProblem(
    `attention_mask[${padded}]`,
    `is ${values[padded]}: padding is not read; remove the padded tokens`,
  )
}

function checkLength(values: readonly number[], field: string, length: number): void {
  if (values.length === length) return
  throw new RowProblem(field, `has ${values.length} entries, but input_ids has ${length}`)
}

function numbers(value: unknown, field: string): number[] {
  if (!Array.isArray(value)) throw new RowProblem(field, `expected a list of numbers, found ${kind(value)}`)
  const wrong = value.findIndex((entry) => typeof entry !== 'number')
  if (wrong >= 0) throw new RowProblem(`${field}[${wrong}]`, `expected a number, found ${shown(value[wrong])}`)
  return value
}
