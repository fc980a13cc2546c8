/** What becomes of a row that is longer than maxLength. */
import { type Truncated, type Truncation, truncate } from '../chat/truncate.ts'
import type { WeightedTokens } from '../chat/weights.ts'
import type { Source } from '../data/conversation.ts'
import { placeList } from '../data/places.ts'
import { place } from '../data/source.ts'
import { TunesmithError } from '../errors.ts'
import { countSupervised } from './example-set.ts'
import type { PrepareOptions } from './prepared.ts'
import type { Tally } from './tally.ts'

/** Share of rows that may be too long before that is an error rather than a loss. */
const TOLERATED = 0.05

/**
 * The pieces of a row as onTooLong leaves them, each in its place, undefined where nothing of it is left; undefined for
 * the whole where the row is dropped, which is then counted: always under 'drop', and under the others where nothing that
 * carries loss would be left.
 *
 * @param bos id of the token that texts begin with, which 'truncate-left' keeps
 * @throws TunesmithError `ERR_TOO_LONG` under the policy 'error'.
 */
export function fitLength(
  pieces: readonly WeightedTokens[],
  source: Source,
  { maxLength, onTooLong }: Pick<PrepareOptions, 'maxLength' | 'onTooLong'>,
  tally: Tally,
  bos?: number,
): readonly (WeightedTokens | Truncated | undefined)[] | undefined {
  const longest = Math.max(0, ...pieces.map(({ ids }) => ids.length))
  if (longest <= maxLength) return pieces
  if (onTooLong === 'error') {
    throw new TunesmithError(
      'ERR_TOO_LONG',
      `${place(source)} has ${longest} tokens, maxLength is ${maxLength}. Shorten or remove it, raise maxLength up to ` +
        'the context of the model, or set onTooLong to "drop", "truncate-turns", "truncate-left" or "truncate-right"',
    )
  }
  if (onTooLong !== 'drop') {
    const cut = truncatePieces(pieces, maxLength, TRUNCATIONS[onTooLong], bos)
    if (cut) return tally.addTruncated(cut, source, pieces)
  }
  tally.tooLong.add(source)
  for (const { ids, weights } of pieces) {
    tally.droppedTokens += ids.length
    tally.droppedSupervisedTokens += countSupervised(weights)
  }
  return undefined
}

const TRUNCATIONS = { 'truncate-turns': 'turns', 'truncate-left': 'left', 'truncate-right': 'right' } as const

/** What may leave more of a row. */
const OTHERS = {
  'truncate-turns':
    '"truncate-right" keeps the beginning of a turn that does not fit, "truncate-left" the end of the row',
  'truncate-right': '"truncate-left" keeps the end of the row',
  'truncate-left': '"truncate-right" keeps the beginning of the row',
} as const

/** Of a conversation in several pieces, those that have nothing left are lost and counted with it. */
function truncatePieces(
  pieces: readonly WeightedTokens[],
  maxLength: number,
  how: Truncation,
  bos: number | undefined,
): (Truncated | undefined)[] | undefined {
  const cut = pieces.map((piece) => truncate(piece, maxLength, how, bos))
  return cut.some((piece) => piece && countSupervised(piece.weights) > 0) ? cut : undefined
}

/**
 * Whether what one side lost to its length is still a loss: `tooLong` of its `rows` valid rows, `kept` conversations.
 *
 * @throws TunesmithError `ERR_TOO_LONG` where more than 5 % of the rows are too long, or none is left.
 */
export function checkTooLong(
  { tooLong, rows, kept, examples }: { tooLong: number; rows: number; kept: number; examples: readonly string[] },
  { maxLength, onTooLong }: Pick<PrepareOptions, 'maxLength' | 'onTooLong'>,
): void {
  if (tooLong === 0 || (kept > 0 && tooLong <= TOLERATED * rows)) return
  const share = ((100 * tooLong) / rows).toFixed(1)
  throw new TunesmithError(
    'ERR_TOO_LONG',
    onTooLong === 'drop' || onTooLong === 'error'
      ? `${tooLong} of ${rows} rows (${share} %) are longer than maxLength (${maxLength} tokens), among them ` +
          `${placeList(examples)}. Up to 5 % would be dropped. Shorten or remove them, raise maxLength if the model's ` +
          'context allows more, or have them cut: onTooLong "truncate-turns", "truncate-left" or "truncate-right"'
      : `${tooLong} of ${rows} rows (${share} %) have nothing that trains left once onTooLong "${onTooLong}" has cut them to ` +
          `maxLength (${maxLength} tokens), among them ${placeList(examples)}. Up to 5 % would be dropped. Shorten or remove ` +
          `them, raise maxLength if the model's context allows more, or cut elsewhere: ${OTHERS[onTooLong]}`,
  )
}
