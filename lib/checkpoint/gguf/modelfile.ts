/**
 * Ollama's Modelfile for an exported model. Ollama has templates of its own kind (Go's), so the chat template is taken
 * apart: what stands before and after the words of each role. Where the template is not of that simple kind, no template
 * is written rather than a wrong one.
 */
import type { ChatTemplate } from '../../chat/template.ts'
import type { Tokenizer } from '../../chat/tokenizer.ts'
import type { Message } from '../../data/conversation.ts'

export interface Modelfile {
  text: string
  warnings: string[]
}

type Role = 'system' | 'user' | 'assistant'
type Around = { before: string; after: string }

/** Content that no template has a rule for. */
const WORDS = { system: '\ufdd2S', user: '\ufdd2U', assistant: '\ufdd2A' }

/**
 * @param file name of the GGUF file beside the Modelfile
 * @param tokenizer where it adds bos by itself, so does llama.cpp, and the template must not
 */
export function modelfile(
  file: string,
  template: ChatTemplate,
  { bos, addsBos }: Pick<Tokenizer, 'bos' | 'addsBos'>,
): Modelfile {
  const lines = [`FROM ./${file}`]
  const warnings: string[] = []
  const opening = bos && template.render([{ role: 'user', content: 'x' }]).startsWith(bos.text) ? bos.text : ''
  const roles = takeApart(template, opening)
  if (roles === undefined) {
    warnings.push(
      'the chat template does more than put text around turns; the Modelfile has no TEMPLATE, write one by hand',
    )
  } else {
    lines.push(`TEMPLATE """${addsBos ? '' : literal(opening)}${goTemplate(roles)}"""`)
    if (!roles.has('system'))
      warnings.push(
        'the chat template has no place of its own for a system message; Ollama will leave system messages out',
      )
  }
  for (const { text } of template.stopTokens) lines.push(`PARAMETER stop ${JSON.stringify(text)}`)
  return { text: `${lines.join('\n')}\n`, warnings }
}

/** What stands around the words of each role, after `opening`; undefined where that depends on anything but the role. */
function takeApart(template: ChatTemplate, opening: string): Map<Role, Around> | undefined {
  const render = (messages: Message[], addGenerationPrompt = false): string | undefined => {
    try {
      const text = template.render(messages, { addGenerationPrompt })
      return text.startsWith(opening) ? text.slice(opening.length) : undefined
    } catch {
      return undefined
    }
  }
  const turn = (role: Role, content: string): Message => ({ role, content })
  const system = turn('system', WORDS.system)
  const exchange = [turn('user', WORDS.user), turn('assistant', WORDS.assistant)]
  const plain = render(exchange)
  const prompt = render([turn('user', WORDS.user)], true)
  if (plain === undefined || prompt === undefined) return undefined
  const [beforeUser, between] = split(plain, WORDS.user)
  const [, afterUser] = split(prompt, WORDS.user)
  const [middle, afterAssistant] = split(between, WORDS.assistant)
  // The prompt ends where the assistant's words begin: it is all that stands between.
  if (middle !== afterUser) return undefined
  const asked = render([turn('user', WORDS.user)])
  if (asked === undefined || !prompt.startsWith(asked)) return undefined
  const assistant = prompt.slice(asked.length)
  const roles = new Map<Role, Around>([
    ['user', { before: beforeUser, after: middle.slice(0, middle.length - assistant.length) }],
    ['assistant', { before: assistant, after: afterAssistant }],
  ])
  const withSystem = render([system, ...exchange])
  if (withSystem?.includes(WORDS.system) && withSystem.endsWith(plain)) {
    const [before, after] = split(withSystem.slice(0, withSystem.length - plain.length), WORDS.system)
    roles.set('system', { before, after })
  }
  return agrees(roles, render) ? roles : undefined
}

/** Whether joining the parts gives what the template renders, for conversations of several kinds. */
function agrees(
  roles: ReadonlyMap<Role, Around>,
  render: (messages: Message[], addGenerationPrompt?: boolean) => string | undefined,
): boolean {
  const contents: [Role, string][] = [
    ['system', 'Be brief.'],
    ['user', 'One?'],
    ['assistant', 'Two.'],
    ['user', 'And\n\nthree?'],
  ]
  const known = contents.filter(([role]) => roles.has(role))
  const conversations = [known, known.filter(([role]) => role !== 'system'), contents.slice(1, 2)]
  return conversations.every((turns) => {
    const messages = turns.map(([role, content]): Message => ({ role, content }))
    const joined = turns.map(([role, content]) => `${roles.get(role)!.before}${content}${roles.get(role)!.after}`)
    return render(messages, true) === joined.join('') + roles.get('assistant')!.before
  })
}

function goTemplate(roles: ReadonlyMap<Role, Around>): string {
  const branches = [...roles].map(([role, { before, after }], index) => {
    const condition = `{{ ${index === 0 ? 'if' : 'else if'} eq .Role ${JSON.stringify(role)} }}`
    return `${condition}${literal(before)}{{ .Content }}${literal(after)}`
  })
  return `{{ range .Messages }}${branches.join('')}{{ end }}{{ end }}${literal(roles.get('assistant')!.before)}`
}

/** Text that stands for itself in a Go template inside three quotes. */
function literal(text: string): string {
  return /\{\{|"""/.test(text) ? `{{ ${JSON.stringify(text)} }}` : text
}

function split(text: string, words: string): [string, string] {
  const at = text.indexOf(words)
  return [text.slice(0, at), text.slice(at + words.length)]
}
