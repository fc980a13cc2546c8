/**
 * The chat template of a run: chosen once, used for training, generation and export alike. Rendering follows
 * Transformers' apply_chat_template.
 */
import { readFile } from 'node:fs/promises'
import type { Message } from '../data/conversation.ts'
import { copyNotes } from '../data/exact-json.ts'
import { TunesmithError } from '../errors.ts'
import { BUILTIN_NAMES, builtinTemplate, isBuiltin, missingTokens } from './builtin-templates.ts'
import { hasGenerationTags, JinjaTemplate } from './jinja.ts'
import { readVariables, withDefaults } from './template-variables.ts'
import { namedTemplates, type Token, type Tokenizer } from './tokenizer.ts'

export interface RenderOptions {
  tools?: readonly unknown[] | undefined
  /** Ends with what precedes an assistant turn. Default false. */
  addGenerationPrompt?: boolean
  /** Further variables, before those of the run. */
  variables?: Record<string, unknown>
  /** With the ends of `{% generation %}` blocks marked by BLOCK_START and BLOCK_END. Default false. */
  marked?: boolean
}

export interface TemplateSettings {
  /** Where it comes from: 'model', a built-in name, or the path of a file. */
  name: string
  /** Jinja sources by name: 'default', and 'tool_use' where conversations with tools have one of their own. */
  sources: ReadonlyMap<string, string>
  /** Further variables for the template, such as `enable_thinking`; they become defaults in its source. */
  variables?: Record<string, unknown>
  /** What strftime_now tells. Default: now, once for the whole run, so that midnight does not change the prompt. */
  now?: Date
}

export class ChatTemplate {
  readonly name: string
  /** Jinja source of the 'default' template: what is exported as chat_template. */
  readonly source: string
  readonly sources: ReadonlyMap<string, string>
  /** The template marks what the assistant generates with `{% generation %}`. */
  readonly tagged: boolean
  /** Tokens that may end an assistant turn: the one this template writes first, then the model's. */
  readonly stopTokens: readonly Token[]
  /** What strftime_now tells. */
  readonly now: Date
  /** The text of the tokenizer's bos, which templates know as bos_token. */
  readonly bos: string | undefined
  /** The run's own variables. */
  readonly variables: Record<string, unknown>
  readonly #compiled = new Map<string, JinjaTemplate>()
  readonly #tokens: Record<string, string>
  /** Sources without the defaults that `variables` are written as. */
  readonly #given: readonly string[]
  #read: readonly string[] | undefined

  /**
   * @throws TunesmithError `ERR_TEMPLATE` where a source does not parse, `ERR_INVALID_OPTION` for variables that cannot be
   * written into it
   */
  constructor(tokenizer: Tokenizer, { name, sources: given, variables = {}, now = new Date() }: TemplateSettings) {
    const sources = new Map([...given].map(([key, source]) => [key, withDefaults(source, variables)]))
    this.name = name
    this.sources = sources
    this.#given = [...given.values()]
    this.now = now
    this.bos = tokenizer.bos?.text
    this.source = sources.get('default') ?? [...sources.values()][0]!
    const tokens = {
      bos_token: tokenizer.bos,
      eos_token: tokenizer.eos,
      pad_token: tokenizer.pad,
      unk_token: tokenizer.unk,
    }
    const defined = Object.entries(tokens).flatMap(([key, token]) => (token ? [[key, token.text]] : []))
    this.#tokens = Object.fromEntries(defined)
    this.variables = variables
    this.tagged = [...sources.values()].some(hasGenerationTags)
    for (const [key, source] of sources) this.#compiled.set(key, compile(source, name, now))
    this.stopTokens = findStopTokens(this, tokenizer)
  }

  /** Names of variables that the sources read and rendering does not set: what `variables` may be about. */
  get readVariables(): readonly string[] {
    this.#read ??= readVariables(this.#given)
    return this.#read
  }

  /**
   * The text of a conversation as the model sees it.
   *
   * @throws Error with the words of the template (raise_exception) or of the engine.
   */
  render(
    messages: readonly Message[],
    { tools, addGenerationPrompt = false, marked = false, variables: more }: RenderOptions = {},
  ): string {
    const compiled = (tools && this.#compiled.get('tool_use')) ?? this.#compiled.get('default') ?? first(this.#compiled)
    const variables = {
      ...more,
      ...this.#tokens,
      messages: messages.map(withoutWeight),
      tools: tools ?? null,
      documents: null,
      add_generation_prompt: addGenerationPrompt,
    }
    try {
      return compiled.render(variables, marked)
    } catch (error) {
      const token = /^'((?:bos|eos|pad|unk)_token)' is undefined$/.exec((error as Error).message)?.[1]
      if (!token || token in this.#tokens) throw error
      const remedy = `the tokenizer has none: set ${token} in tokenizer_config.json, or use a chatTemplate without it`
      throw new Error(`it writes ${token}, and ${remedy}`, { cause: error })
    }
  }
}

/** A template, and what is worth a warning about the choice. */
export interface TemplateChoice {
  template: ChatTemplate
  /** Present where the model has no template of its own, or none named default, and another stands in. */
  fallback?: string
  /** Present where `variables` holds some that the template never reads. */
  unread?: string
}

/**
 * The template that `chatTemplate` names: 'model' for the model's own, a built-in name, or the path of a Jinja file.
 * Where the model has none, ChatML if `<|im_start|>` and `<|im_end|>` are single tokens, else plain dialogue.
 *
 * @throws TunesmithError `ERR_TEMPLATE_NOT_FOUND` for an unknown name or file, `ERR_TEMPLATE` where it does not parse,
 * `ERR_NO_EOS` where plain dialogue has no token to end its turns.
 */
export async function chooseTemplate(
  chatTemplate: string,
  tokenizer: Tokenizer,
  { variables, now }: Pick<TemplateSettings, 'variables' | 'now'> = {},
): Promise<TemplateChoice> {
  const settings = { ...(variables && { variables }), ...(now && { now }) }
  const make = (name: string, sources: ReadonlyMap<string, string>): TemplateChoice => {
    const template = new ChatTemplate(tokenizer, { name, sources, ...settings })
    return { template, ...withoutDefault(template), ...neverRead(template) }
  }
  if (chatTemplate === 'model' && tokenizer.chatTemplates.size > 0) return make('model', tokenizer.chatTemplates)
  if (chatTemplate === 'model') {
    const chatml = missingTokens('chatml', tokenizer).length === 0
    const name = chatml ? 'chatml' : 'plain'
    const because = chatml
      ? 'its vocabulary has <|im_start|> and <|im_end|>'
      : `its vocabulary has no chat tokens; assistant turns end in ${tokenizer.eos?.text}`
    const fallback = `The model has no chat template; using the built-in "${name}", because ${because}`
    return { ...make(name, new Map([['default', builtinTemplate(name, tokenizer)]])), fallback }
  }
  if (isBuiltin(chatTemplate))
    return make(chatTemplate, new Map([['default', builtinTemplate(chatTemplate, tokenizer)]]))
  return make(chatTemplate, await readTemplates(chatTemplate))
}

/** Transformers refuses a list of templates without one named default; a single one of another name may well be meant. */
function withoutDefault({ sources }: ChatTemplate): { fallback?: string } {
  if (sources.has('default')) return {}
  const names = [...sources.keys()].map((name) => JSON.stringify(name))
  const fallback =
    `No chat template is named "default" (found ${names.join(', ')}); using ${names[0]}, which may be meant for something ` +
    'else. Name the right one "default", or give chatTemplate'
  return { fallback }
}

function neverRead(template: ChatTemplate): { unread?: string } {
  const given = Object.keys(template.variables)
  // The sources are parsed for this.
  const readVariables = given.length > 0 ? template.readVariables : []
  const names = given.filter((name) => !readVariables.includes(name))
  if (names.length === 0) return {}
  const known = readVariables.length > 0 ? `it reads ${readVariables.join(', ')}` : 'it reads none'
  return { unread: `templateVariables: the chat template never reads ${names.join(', ')}; ${known}` }
}

/** The templates in a file: Jinja, or a tokenizer_config.json with `chat_template`. */
async function readTemplates(path: string): Promise<ReadonlyMap<string, string>> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    throw new TunesmithError(
      'ERR_TEMPLATE_NOT_FOUND',
      `chatTemplate "${path}" is neither "model", ${BUILTIN_NAMES.map((name) => `"${name}"`).join(', ')} nor a file ` +
        `that can be read: ${(error as Error).message}`,
      { cause: error },
    )
  }
  if (!path.endsWith('.json')) return new Map([['default', text]])
  try {
    const templates = namedTemplates((JSON.parse(text) as Record<string, unknown> | null)?.chat_template)
    if (templates.size > 0) return templates
  } catch (error) {
    throw new TunesmithError('ERR_TEMPLATE', `Cannot use ${path}: ${(error as Error).message}`, { cause: error })
  }
  throw new TunesmithError('ERR_TEMPLATE', `${path} has no chat_template; give a tokenizer_config.json or a Jinja file`)
}

function compile(source: string, name: string, now: Date): JinjaTemplate {
  try {
    return new JinjaTemplate(source, now)
  } catch (error) {
    const which = name === 'model' ? "The model's chat template" : `The chat template ${name}`
    throw new TunesmithError('ERR_TEMPLATE', `${which} does not parse: ${(error as Error).message}`, { cause: error })
  }
}

function first<T>(map: ReadonlyMap<string, T>): T {
  return [...map.values()][0]!
}

function withoutWeight(message: Message): Omit<Message, 'weight'> {
  if (message.weight === undefined) return message
  const { weight: _, ...shown } = message
  copyNotes(message, shown)
  return shown
}

/** Words that no template treats specially. */
const PROBE_USER = 'Zwei'
const PROBE_REPLY = 'Vier'

/**
 * The tokens that may end a turn. The first is what this template writes after a reply, found by rendering one; the
 * model's own stop tokens follow, for turns that end differently (a tool call).
 */
function findStopTokens(template: ChatTemplate, tokenizer: Tokenizer): Token[] {
  const written = probeStop(template, tokenizer)
  const others = tokenizer.stops.filter(({ id }) => id !== written?.id)
  return written ? [written, ...others] : others
}

function probeStop(template: ChatTemplate, tokenizer: Tokenizer): Token | undefined {
  const system: Message = { role: 'system', content: 'Sprich.' }
  const user: Message = { role: 'user', content: PROBE_USER }
  const reply: Message = { role: 'assistant', content: PROBE_REPLY }
  for (const messages of [
    [user, reply],
    [system, user, reply],
  ]) {
    let text: string
    try {
      text = template.render(messages)
    } catch {
      continue
    }
    const end = text.lastIndexOf(PROBE_REPLY)
    if (end < 0) continue
    return firstToken(text.slice(end + PROBE_REPLY.length), tokenizer)
  }
  return undefined
}

/** The added token that comes first in `text`; of several at one place the longest. */
function firstToken(text: string, { added }: Tokenizer): Token | undefined {
  let best: { at: number; token: Token } | undefined
  for (const token of added) {
    const at = token.text === '' ? -1 : text.indexOf(token.text)
    if (at < 0) continue
    const better = !best || at < best.at || (at === best.at && token.text.length > best.token.text.length)
    if (better) best = { at, token: { text: token.text, id: token.id } }
  }
  return best?.token
}
