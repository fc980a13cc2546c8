/**
 * From files to examples: the whole way of the data before training starts. One complete pass, because the checks, the
 * schedule and the memory plan need it.
 *
 * Each stage has its file: lib/data/read.ts gives rows, row-texts.ts renders them, lib/chat/weights.ts turns texts into
 * weighted ids, length.ts decides on the long ones, tally.ts counts; pass.ts leads the rows through.
 */
import { checkSupervisedShare } from '../chat/checks.ts'
import type { Tokenizer } from '../chat/tokenizer.ts'
import type { Example } from '../data/conversation.ts'
import { splitForEvaluation } from '../data/split.ts'
import { conversationCount, exampleSet } from './example-set.ts'
import { asMixture } from './mixture.ts'
import { type Conversations, Pass } from './pass.ts'
import type { Prepared, PrepareHooks, PrepareOptions } from './prepared.ts'

/**
 * Reads, validates, renders, tokenises and weighs everything.
 *
 * @throws TunesmithError as the parts of lib/data and lib/chat, `ERR_TOO_LONG` where more than 5 % of rows (or one,
 * under onTooLong 'error') exceed maxLength, `ERR_TRAIN_ON` for text rows without trainOn 'all'.
 */
export async function prepare(
  options: PrepareOptions,
  tokenizer: Tokenizer,
  hooks: PrepareHooks = {},
): Promise<Prepared> {
  const { data, trainOn, promptLossWeight } = options
  const pass = new Pass(options, tokenizer, hooks)
  const read = await pass.read('train', data.train)
  const readForEvaluation = data.eval.length > 0 ? await pass.read('eval', data.eval) : undefined
  const [kept, setAside] = data.evalFraction > 0 ? divide(read, options) : [read.pieces, readForEvaluation?.pieces]
  const train = await asMixture(exampleSet(kept), data.train)
  const held = setAside && exampleSet(setAside)
  checkSupervisedShare(train, { trainOn, promptLossWeight })
  return {
    train,
    ...(held && { eval: held }),
    ...(pass.template && { template: pass.template }),
    counts: pass.tally.counts(conversationCount(train), held ? conversationCount(held) : 0),
    formats: pass.tally.report.formats,
    warnings: pass.tally.allWarnings(),
  }
}

/** Conversations that train, and those that evalFraction sets aside. */
function divide(
  { pieces, keys }: Conversations,
  { data, seed }: PrepareOptions,
): [Example[][], Example[][] | undefined] {
  if (pieces.length === 0) return [pieces, undefined]
  const forEvaluation = splitForEvaluation(keys, data.evalFraction, seed)
  return [pieces.filter((_, index) => !forEvaluation[index]), pieces.filter((_, index) => forEvaluation[index])]
}
