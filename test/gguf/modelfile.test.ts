import assert from 'node:assert/strict'
import fc from 'fast-check'
import { BUILTIN_NAMES, missingTokens } from '../../lib/chat/builtin-templates.ts'
import { chooseTemplate } from '../../lib/chat/template.ts'
import type { Tokenizer } from '../../lib/chat/tokenizer.ts'
import { modelfile } from '../../lib/checkpoint/gguf/modelfile.ts'
import type { Message } from '../../lib/data/conversation.ts'
import { dialogues, template, toyTokenizer } from '../chat/helpers.ts'
import { temporaryFolder } from '../data/helpers.ts'

/** What Go makes of the few things that are used here. */
function execute(source: string, messages: readonly Message[]): string {
  const text = (literal: string) => literal.replace(/\{\{ ("(?:[^"\\]|\\.)*") \}\}/g, (_, json) => JSON.parse(json))
  const [, opening, body, prompt] =
    /^([\s\S]*?)\{\{ range \.Messages \}\}([\s\S]*)\{\{ end \}\}\{\{ end \}\}([\s\S]*)$/.exec(source)!
  const branches = new Map(
    [...body!.matchAll(/\{\{ (?:else )?if eq \.Role "(\w+)" \}\}([\s\S]*?)(?=\{\{ else if eq|$)/g)].map(
      ([, role, part]) => [role!, part!],
    ),
  )
  const turns = messages.map(({ role, content }) => {
    const [before, after] = (branches.get(role) ?? '{{ .Content }}').split('{{ .Content }}').map(text)
    return `${before}${content}${after}`
  })
  return text(opening!) + turns.join('') + text(prompt!)
}

const templateOf = (text: string) => /^TEMPLATE """([\s\S]*)"""$/m.exec(text)?.[1]

describe('a Modelfile', () => {
  const { path } = temporaryFolder()
  let tokenizer: Tokenizer
  before(async () => {
    const special = [
      '<s>',
      '</s>',
      '<|im_start|>',
      '<|im_end|>',
      '<|eot_id|>',
      '<|start_header_id|>',
      '<|end_header_id|>',
    ]
    special.push('<|begin_of_text|>', '<start_of_turn>', '<end_of_turn>', '<|user|>', '<|assistant|>', '<|system|>')
    tokenizer = await toyTokenizer(path('toy'), { special, bos: '<s>', eos: '</s>' })
  })

  for (const name of BUILTIN_NAMES) {
    it(`renders as the built-in template ${name}, or leaves the template out and says so`, async () => {
      if (missingTokens(name, tokenizer).length > 0) throw new Error(`the toy tokenizer lacks tokens of ${name}`)
      const { template: own } = await chooseTemplate(name, tokenizer)
      const { text, warnings } = modelfile('m.gguf', own, tokenizer)
      assert.match(text, /^FROM \.\/m\.gguf\n/)
      for (const stop of own.stopTokens) assert.ok(text.includes(`PARAMETER stop ${JSON.stringify(stop.text)}\n`))
      const found = templateOf(text)
      if (found === undefined) {
        assert.ok(['mistral', 'alpaca'].includes(name), name)
        return assert.match(warnings[0]!, /has no TEMPLATE/)
      }
      const hasSystem = found.includes('"system"')
      assert.equal(warnings.length, hasSystem ? 0 : 1)
      fc.assert(
        fc.property(dialogues, (dialogue) => {
          // Some templates trim what is said, Go's do not.
          const messages = dialogue.messages.map((message) => ({ ...message, content: message.content!.trim() || 'x' }))
          fc.pre(hasSystem || messages.every(({ role }) => role !== 'system'))
          const rendered = own.render(messages, { addGenerationPrompt: true })
          const bos = tokenizer.addsBos ? tokenizer.bos!.text : ''
          assert.equal(bos + execute(found, messages), rendered)
        }),
      )
    })
  }

  it('writes braces and bos of a template as they are', () => {
    const own = template(
      tokenizer,
      "{{ bos_token }}{% for m in messages %}{{ '{{' }}{{ m.role }}: {{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}{{ '{{' }}assistant: {% endif %}",
    )
    const found = templateOf(modelfile('m.gguf', own, { bos: tokenizer.bos, addsBos: false }).text)!
    const messages: Message[] = [{ role: 'user', content: 'hi' }]
    assert.equal(execute(found, messages), '<s>{{user: hi</s>{{assistant: ')
    const without = templateOf(modelfile('m.gguf', own, { bos: tokenizer.bos, addsBos: true }).text)!
    assert.equal(execute(without, messages), '{{user: hi</s>{{assistant: ')
  })

  it('has no template where turns are numbered, trimmed or joined', () => {
    const source = (content: string) =>
      `{% for m in messages %}[{{ m.role }}] ${content}</s>{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}`
    const made = (content: string) => modelfile('m.gguf', template(tokenizer, source(content)), tokenizer)
    assert.ok(templateOf(made('{{ m.content }}').text))
    for (const content of ['{{ loop.index }}{{ m.content }}', "{{ m.content.split('\\n')[0] }}"]) {
      const { text, warnings } = made(content)
      assert.equal(templateOf(text), undefined)
      assert.match(warnings[0]!, /has no TEMPLATE/)
    }
  })
})
