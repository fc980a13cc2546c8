/** What must hold before training starts: some tokens carry loss, and not nearly all of them unless asked for. */
import { TunesmithError } from '../errors.ts'
import type { TrainOn } from './weights.ts'

/** From this share on, "assistant only" has evidently marked everything. */
const NEARLY_ALL = 0.99

/**
 * @throws TunesmithError `ERR_NOTHING_SUPERVISED` where no token carries loss, `ERR_EVERYTHING_SUPERVISED` where 99 % or
 * more do without `trainOn: 'all'` or a prompt loss weight.
 */
export function checkSupervisedShare(
  { tokens, supervisedTokens }: { tokens: number; supervisedTokens: number },
  { trainOn, promptLossWeight }: { trainOn: TrainOn; promptLossWeight: number },
): void {
  if (supervisedTokens === 0) {
    throw new TunesmithError(
      'ERR_NOTHING_SUPERVISED',
      `None of the ${tokens} tokens carries loss. Give assistant turns a weight above 0, or set trainOn`,
    )
  }
  const share = supervisedTokens / tokens
  if (trainOn === 'all' || promptLossWeight > 0 || share < NEARLY_ALL) return
  throw new TunesmithError(
    'ERR_EVERYTHING_SUPERVISED',
    `${(100 * share).toFixed(1)} % of the ${tokens} tokens carry loss, as if there were no prompts. Check that the ` +
      'template marks assistant turns only; if this is meant, set trainOn to "all"',
  )
}
