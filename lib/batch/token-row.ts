/** Rows that come tokenised: nothing to render, only to check against tokenizer and options. */
import type { Tokenizer } from '../chat/tokenizer.ts'
import type { TurnTokens, WeightedTokens } from '../chat/weights.ts'
import type { TokenRow } from '../data/conversation.ts'
import { RowProblem } from '../data/rows.ts'
import { place } from '../data/source.ts'
import { TunesmithError } from '../errors.ts'
import type { PrepareOptions } from './prepared.ts'

/**
 * Ids as they are; weights as the row gives them, which `trainOn` and `promptLossWeight` do not change.
 *
 * @throws RowProblem for an id that is not in the vocabulary, TunesmithError `ERR_TRAIN_ON` for a row without labels or
 * weights unless trainOn is 'all'.
 */
export function weightedTokenRow(
  { ids, weights, weight = 1, source }: TokenRow,
  { vocabSize }: Pick<Tokenizer, 'vocabSize'>,
  { trainOn }: Pick<PrepareOptions, 'trainOn'>,
): WeightedTokens {
  const wrong = ids.findIndex((id) => id >= vocabSize)
  if (wrong >= 0) {
    throw new RowProblem(
      `input_ids[${wrong}]`,
      `is ${ids[wrong]}, but the ids of the tokenizer end at ${vocabSize - 1}; the row was made with another tokenizer`,
    )
  }
  if (weights === undefined && trainOn !== 'all') {
    throw new TunesmithError(
      'ERR_TRAIN_ON',
      `${place(source)} has "input_ids" without "labels" or "weights", so that every token would carry loss; set trainOn ` +
        'to "all" if that is meant, or add labels (-100 where a token carries none)',
    )
  }
  const scaled = Float32Array.from(ids, (_, index) => (weights?.[index] ?? 1) * weight)
  const turns = weights ? runs(scaled) : []
  scaled[0] = 0
  return { ids, weights: scaled, straddling: 0, turns }
}

/** What stands for the trained turns of such a row: tokens in a row that carry loss, the last of which ends the turn. */
function runs(weights: Float32Array): TurnTokens[] {
  const found: TurnTokens[] = []
  for (let first = 0; first < weights.length; first++) {
    const weight = weights[first]!
    if (weight === 0) continue
    let end = first + 1
    while (end < weights.length && weights[end]! > 0) end++
    found.push({ first, end, weight })
    first = end
  }
  return found
}
