/** Chat templates that come with the package, as Jinja sources that are exported with the checkpoint. */
import { TunesmithError } from '../errors.ts'
import { ALPACA } from './builtin/alpaca.ts'
import { CHATML } from './builtin/chatml.ts'
import { GEMMA } from './builtin/gemma.ts'
import { LLAMA3 } from './builtin/llama3.ts'
import { MISTRAL } from './builtin/mistral.ts'
import { PLAIN } from './builtin/plain.ts'
import { ZEPHYR } from './builtin/zephyr.ts'
import type { Tokenizer } from './tokenizer.ts'

export interface BuiltinTemplate {
  source: string
  /** Tokens that must be single tokens of the vocabulary. */
  tokens: readonly string[]
  /** Whether assistant turns end in the tokenizer's own eos. */
  needsEos: boolean
}

const TEMPLATES = {
  chatml: CHATML,
  llama3: LLAMA3,
  zephyr: ZEPHYR,
  mistral: MISTRAL,
  gemma: GEMMA,
  alpaca: ALPACA,
  plain: PLAIN,
} satisfies Record<string, BuiltinTemplate>

export type BuiltinName = keyof typeof TEMPLATES

export const BUILTIN_NAMES = Object.keys(TEMPLATES) as BuiltinName[]

export function isBuiltin(name: string): name is BuiltinName {
  return Object.hasOwn(TEMPLATES, name)
}

/** The tokens of a built-in template that the vocabulary lacks. */
export function missingTokens(name: BuiltinName, { added }: Pick<Tokenizer, 'added'>): string[] {
  return TEMPLATES[name].tokens.filter((text) => !added.some((token) => token.text === text))
}

/**
 * The source of a built-in template, with bos at its beginning where the tokenizer starts every text with it.
 *
 * @throws TunesmithError `ERR_TEMPLATE` where the vocabulary lacks its tokens, `ERR_NO_EOS` where it needs an eos
 */
export function builtinTemplate(name: BuiltinName, tokenizer: Tokenizer): string {
  const { source, needsEos } = TEMPLATES[name]
  const missing = missingTokens(name, tokenizer)
  if (missing.length > 0) {
    throw new TunesmithError(
      'ERR_TEMPLATE',
      `The "${name}" template needs ${missing.join(' and ')} as single tokens, and the tokenizer in ${tokenizer.folder} ` +
        'does not have them; use chatTemplate "plain"',
    )
  }
  if (needsEos && !tokenizer.eos) {
    throw new TunesmithError(
      'ERR_NO_EOS',
      `The tokenizer in ${tokenizer.folder} has no eos token, so assistant turns of the "${name}" template could not end. ` +
        'Set eos_token in tokenizer_config.json, or give a chatTemplate with an end of turn of its own',
    )
  }
  return tokenizer.addsBos ? `{{- bos_token }}\n${source}` : source
}
