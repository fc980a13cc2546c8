/**
 * From files to examples: the whole way of the data before training starts. One complete pass, because the checks, the
 * schedule and the memory plan need it; or what an earlier one on the same data has left in the cache.
 *
 * Each stage has its file: lib/data/read.ts gives rows, row-texts.ts renders them, lib/chat/weights.ts turns texts into
 * weighted ids, length.ts decides on the long ones, tally.ts counts; pass.ts leads the rows through.
 */
import { checkSupervisedShare } from '../chat/checks.ts'
import { type ChatTemplate, chooseTemplate } from '../chat/template.ts'
import type { Tokenizer } from '../chat/tokenizer.ts'
import type { Example } from '../data/conversation.ts'
import { splitForEvaluation } from '../data/split.ts'
import { TunesmithError, type Warning } from '../errors.ts'
import { PrepareCache } from './cache/cache.ts'
import { cacheKey, unchanged } from './cache/key.ts'
import { conversationCount, exampleSet } from './example-set.ts'
import { asMixture } from './mixture.ts'
import { type Conversations, Pass, type PassResult } from './pass.ts'
import type { Prepared, PrepareHooks, PrepareOptions, Side } from './prepared.ts'
import { nothingLeft } from './tally.ts'

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
  const warnings: Warning[] = []
  const { result, template } = await readOrRecall(options, tokenizer, hooks, warnings)
  const [kept, setAside] =
    data.evalFraction > 0 ? divide(result.train, options) : [result.train.pieces, result.eval?.pieces]
  const train = await asMixture(exampleSet(kept), data.train)
  const held = setAside && exampleSet(setAside)
  if (train.tokens === 0) throw nothingLeft(result.counts)
  checkSupervisedShare(train, { trainOn, promptLossWeight })
  return {
    train,
    ...(held && { eval: held }),
    ...(template && { template }),
    counts: { ...result.counts, used: conversationCount(train), evaluated: held ? conversationCount(held) : 0 },
    formats: result.formats,
    warnings: [...warnings, ...result.warnings],
  }
}

interface Found {
  result: PassResult
  template: ChatTemplate | undefined
}

/** A pass over the data, or its result from the cache; what is wrong with the cache is told in `warnings`. */
async function readOrRecall(
  options: PrepareOptions,
  tokenizer: Tokenizer,
  hooks: PrepareHooks,
  warnings: Warning[],
): Promise<Found> {
  if (!options.cache) return read(options, tokenizer, hooks)
  const cache = new PrepareCache(options.cache)
  const { key, files } = await keyOf(options, tokenizer, hooks, warnings)
  if (key === undefined) return read(options, tokenizer, hooks)
  const kept = await cache.find(key, warnings, hooks.signal)
  if (kept) {
    for (const side of ['train', 'eval'] as const) if (kept[side]) tellRecalled(side, kept[side], hooks)
    const variables = options.templateVariables ?? {}
    const choice = kept.usesTemplate ? await chooseTemplate(options.chatTemplate, tokenizer, { variables }) : undefined
    return { result: kept, template: choice?.template }
  }
  const found = await read(options, tokenizer, hooks)
  // Of a file that was written to meanwhile nobody knows which content was read; a glob may match another one now.
  if (await unchanged(options, files)) await cache.keep(key, found.result, warnings)
  return found
}

async function read(options: PrepareOptions, tokenizer: Tokenizer, hooks: PrepareHooks): Promise<Found> {
  const pass = new Pass(options, tokenizer, hooks)
  return { result: await pass.run(), template: pass.template }
}

async function keyOf(
  options: PrepareOptions,
  tokenizer: Tokenizer,
  { signal }: PrepareHooks,
  warnings: Warning[],
): ReturnType<typeof cacheKey> {
  try {
    return await cacheKey(options, tokenizer, signal)
  } catch (error) {
    signal?.throwIfAborted()
    if (error instanceof TunesmithError) throw error
    warnings.push({ code: 'WARN_CACHE', message: `The cache is not used: ${(error as Error).message}` })
    return { key: undefined, files: [] }
  }
}

function tellRecalled(side: Side, { pieces }: Conversations, { onProgress }: PrepareHooks): void {
  let tokens = 0
  for (const list of pieces) for (const { ids } of list) tokens += ids.length
  onProgress?.({ side, rows: pieces.length, tokens, cached: true })
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
