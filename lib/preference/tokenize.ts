/**
 * Prompt and answers as token ids, as TRL's DPOTrainer has them: prompt and prompt + answer are encoded each as a whole, and
 * the answer's tokens are those after as many as the prompt has. They follow the prompt's own tokens, also where these are
 * not what the whole begins with.
 */
import type { ChatTemplate } from '../chat/template.ts'
import type { Tokenizer } from '../chat/tokenizer.ts'
import type { Message } from '../data/conversation.ts'
import { place } from '../data/source.ts'
import { TunesmithError } from '../errors.ts'
import type { PreferencePair } from './pair.ts'

export interface TokenizedPair {
  /** Prompt and answer, at most maxLength tokens. */
  chosen: Int32Array
  rejected: Int32Array
  /** Tokens of either that belong to the prompt. */
  promptTokens: number
  /** Answers that were longer. */
  cut: number
  /** Answers whose encoding begins otherwise than the prompt's: the boundary lies inside a token there. */
  straddling: number
}

export interface TokenizeSettings {
  tokenizer: Tokenizer
  template: ChatTemplate
  /** Tokens of prompt and answer together. */
  maxLength: number
  /** Cuts what is longer at its end, as TRL's keep_start; else it is an error. */
  cuts: boolean
}

/** @throws TunesmithError `ERR_NO_EOS`, `ERR_BAD_ROW`, `ERR_TOO_LONG` */
export async function tokenizePairs(
  pairs: readonly PreferencePair[],
  settings: TokenizeSettings,
): Promise<TokenizedPair[]> {
  const { tokenizer } = settings
  const texts = pairs.flatMap((pair) => textsOf(pair, settings))
  // Templates write their special tokens themselves; around a text the tokenizer puts its own.
  const chat = typeof pairs[0]!.prompt !== 'string'
  const ids = chat
    ? (await tokenizer.encodeBatch(texts)).map((encoding) => encoding.ids)
    : await tokenizer.encodeWithSpecial(texts)
  return pairs.map((pair, index) => {
    const [prompt, chosen, rejected] = ids.slice(3 * index, 3 * index + 3) as [Int32Array, Int32Array, Int32Array]
    return boundary(pair, prompt, { chosen, rejected }, settings)
  })
}

/** The prompt, and the prompt with either answer. */
function textsOf(pair: PreferencePair, { tokenizer, template }: TokenizeSettings): [string, string, string] {
  const { prompt, chosen, rejected, tools } = pair
  if (typeof prompt === 'string') {
    const eos = tokenizer.eos?.text
    if (eos === undefined)
      throw new TunesmithError('ERR_NO_EOS', 'answers that are texts end in eos, and the tokenizer has none')
    const ended = (answer: string) => (answer.endsWith(eos) ? answer : answer + eos)
    return [prompt, prompt + ended(chosen as string), prompt + ended(rejected as string)]
  }
  const whole = (answer: PreferencePair['chosen']) =>
    render(pair, () => template.render([...prompt, ...(answer as Message[])], { tools }))
  const asked = render(pair, () => template.render(prompt, { tools, addGenerationPrompt: true }))
  return [asked, whole(chosen), whole(rejected)]
}

function render({ source }: PreferencePair, run: () => string): string {
  try {
    return run()
  } catch (cause) {
    const message = `${place(source)}: the chat template does not render it: ${(cause as Error).message}`
    throw new TunesmithError('ERR_BAD_ROW', message, { cause })
  }
}

function boundary(
  { source }: PreferencePair,
  prompt: Int32Array,
  answers: { chosen: Int32Array; rejected: Int32Array },
  { maxLength, cuts }: TokenizeSettings,
): TokenizedPair {
  if (prompt.length === 0)
    throw new TunesmithError(
      'ERR_BAD_ROW',
      `${place(source)}: the prompt has no tokens, so nothing predicts the answer's first`,
    )
  if (prompt.length >= maxLength) {
    throw new TunesmithError(
      'ERR_TOO_LONG',
      `${place(source)}: the prompt has ${prompt.length} tokens, and with maxLength ${maxLength} no answer follows. Remove the row, or raise maxLength`,
    )
  }
  let cut = 0
  let straddling = 0
  for (const [key, ids] of Object.entries(answers)) {
    if (ids.length <= prompt.length)
      throw new TunesmithError(
        'ERR_BAD_ROW',
        `${place(source)}: ${key}: has no token after the ${prompt.length} of the prompt`,
      )
    if (ids.length > maxLength && !cuts) {
      throw new TunesmithError(
        'ERR_TOO_LONG',
        `${place(source)}: ${key}: prompt and answer have ${ids.length} tokens, and the model's context holds ${maxLength}. ` +
          "Remove the row, or give maxLength to cut what is longer, as TRL's max_length does",
      )
    }
    cut += Number(ids.length > maxLength)
    straddling += Number(prompt.some((id, index) => ids[index] !== id))
  }
  const { chosen, rejected } = answers
  const joined = (ids: Int32Array) => {
    const whole = ids.slice(0, maxLength)
    whole.set(prompt)
    return whole
  }
  return { chosen: joined(chosen), rejected: joined(rejected), promptTokens: prompt.length, cut, straddling }
}
