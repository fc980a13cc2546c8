import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { builtinTemplate } from '../../lib/chat/builtin-templates.ts'
import { type CallFormat, callFormat, parseCalls } from '../../lib/chat/call-format.ts'
import { ChatTemplate } from '../../lib/chat/template.ts'
import type { Tokenizer } from '../../lib/chat/tokenizer.ts'
import { itShared, shared } from '../shared.ts'
import { realTokenizer, template, toyTokenizer } from './helpers.ts'

/** The parts of the published templates that write calls. */
const HERMES = `{%- for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}{{ message.content or '' }}
{%- for call in message.tool_calls or [] %}{{ '\n<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments | tojson + '}\n</tool_call>' }}{%- endfor %}{{ '<|im_end|>\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}`
const LLAMA = `{%- for message in messages %}{{ '<|start|>' + message.role + '<|end|>\n\n' }}
{%- if message.tool_calls %}{{- '{"name": "' + message.tool_calls[0].function.name + '", "parameters": ' }}
{{- message.tool_calls[0].function.arguments | tojson + '}' }}{% else %}{{ message.content }}{% endif %}{{ '<|im_end|>' }}
{%- endfor %}{%- if add_generation_prompt %}{{ '<|start|>assistant<|end|>\n\n' }}{% endif %}`
const MISTRAL = `{%- for message in messages %}{%- if message.role == 'user' %}{{ '[INST] ' + message.content + '[/INST]' }}
{%- elif message.tool_calls %}{{ '[TOOL_CALLS] [' }}{%- for call in message.tool_calls %}
{%- if call.id | length != 9 %}{{ raise_exception('ids have nine characters') }}{% endif %}
{{- '{"name": "' + call.function.name + '", "arguments": ' + call.function.arguments | tojson + ', "id": "' + call.id + '"}' }}
{%- if not loop.last %}, {% endif %}{% endfor %}{{ ']</s>' }}{%- else %}{{ ' ' + message.content + '</s>' }}{%- endif %}
{%- endfor %}`
const PYTHONIC = `{%- for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}{{ message.content or '' }}
{%- for call in message.tool_calls or [] %}{{ '[' + call.function.name + '(acht="Zehn")]' }}{% endfor %}{{ '<|im_end|>\n' }}
{%- endfor %}{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}`

describe('tool calls that a model writes', () => {
  let folder: string
  let tokenizer: Tokenizer
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'tunesmith-'))
    tokenizer = await toyTokenizer(folder, { special: ['<|im_start|>', '<|im_end|>', '</s>'], eos: '</s>' })
  })
  after(() => rmSync(folder, { recursive: true }))

  const formatOf = (source: string) => callFormat(template(tokenizer, source))
  const hermes: CallFormat = {
    open: '<tool_call>',
    close: '</tool_call>',
    argumentsKey: 'arguments',
    argumentsAsText: false,
  }

  it('have the format of the template', () => {
    assert.deepEqual(formatOf(HERMES), hermes)
    assert.deepEqual(formatOf(LLAMA), { open: '', close: '', argumentsKey: 'parameters', argumentsAsText: false })
    assert.deepEqual(formatOf(MISTRAL), {
      open: '[TOOL_CALLS]',
      close: '',
      argumentsKey: 'arguments',
      argumentsAsText: false,
    })
    const plain = builtinTemplate('plain', tokenizer)
    assert.deepEqual(formatOf(plain), { open: 'Call:', close: '', argumentsKey: 'arguments', argumentsAsText: false })
  })

  it('have none where the template knows no calls, or does not write them as JSON', () => {
    assert.equal(formatOf(builtinTemplate('zephyr', tokenizer)), undefined)
    assert.equal(formatOf(PYTHONIC), undefined)
  })

  itShared('have the format of real templates', async () => {
    const qwen = await realTokenizer('qwen3')
    const sources = (name: string) => new Map([['default', readFileSync(shared(`templates/${name}.jinja`), 'utf8')]])
    for (const name of ['qwen3', 'minimind'])
      assert.deepEqual(callFormat(new ChatTemplate(qwen, { name, sources: sources(name) })), hermes, name)
    for (const name of ['llama3', 'deepseek_v3', 'lfm2_5JinjaTemplate'])
      assert.equal(callFormat(new ChatTemplate(qwen, { name, sources: sources(name) })), undefined, name)
  })

  it('are read back as the template writes them, with what stands around them', () => {
    const calls = [
      { id: 'call00000', type: 'function', function: { name: 'weather', arguments: { city: 'Graz "}" [', days: 2 } } },
      { id: 'call00001', type: 'function', function: { name: 'time', arguments: {} } },
    ]
    for (const source of [HERMES, MISTRAL]) {
      const chat = template(tokenizer, source)
      const user = { role: 'user' as const, content: 'Hi' }
      const prompt = chat.render([user], { addGenerationPrompt: true })
      const content = source === HERMES ? 'I will look.' : null
      const text = chat.render([user, { role: 'assistant', content, tool_calls: calls }])
      const said = text.slice(prompt.length).replace(/<\|im_end\|>\s*$|<\/s>$/, '')
      assert.deepEqual(parseCalls(callFormat(chat)!, said), { content, calls })
    }
  })

  it('have arguments as the template wants them, so that the turn can be shown to it again', () => {
    const source = HERMES.replace('call.function.arguments | tojson', 'call.function.arguments')
    const chat = template(tokenizer, source)
    const format = callFormat(chat)!
    assert.deepEqual(format, { ...hermes, argumentsAsText: true })
    const said = '<tool_call>\n{"name": "a", "arguments": {"x": 1.0, "y": "ä"}}\n</tool_call>'
    const { content, calls } = parseCalls(format, said)!
    assert.equal(calls[0]!.function.arguments, '{"x": 1.0, "y": "ä"}')
    const user = { role: 'user' as const, content: 'Hi' }
    assert.ok(chat.render([user, { role: 'assistant', content, tool_calls: calls }]).includes(said))
  })

  it('are numbered on from those of the prompt, and keep an id of their own', () => {
    const said =
      '<tool_call>{"name": "a", "arguments": {}}</tool_call><tool_call>{"id": "x1", "name": "b", "arguments": "{}"}'
    const found = parseCalls(hermes, said, [], 3)!
    assert.deepEqual(
      found.calls.map(({ id, function: { arguments: args } }) => [id, args]),
      [
        ['call00003', {}],
        ['x1', {}],
      ],
    )
    assert.equal(found.content, null)
  })

  it('without an opening text are calls only where they name a tool, and stand alone', () => {
    const format: CallFormat = { open: '', close: '', argumentsKey: 'parameters', argumentsAsText: false }
    const tools = [{ type: 'function', function: { name: 'weather' } }]
    const said = '{"name": "weather", "parameters": {"city": "Graz"}}'
    assert.equal(parseCalls(format, said, tools)?.calls[0]?.function.name, 'weather')
    assert.equal(parseCalls(format, said), undefined)
    assert.equal(parseCalls(format, `${said} is what I would call`, tools), undefined)
    assert.equal(parseCalls(format, `I call ${said}`, tools), undefined)
    assert.equal(parseCalls(format, '{"name": "Anna", "parameters": {}}', tools), undefined)
  })

  it('that are malformed are text', () => {
    for (const said of [
      'no call',
      '<tool_call>',
      '<tool_call>{"name": "a", "arguments": {}',
      '<tool_call>{"name": "a"}</tool_call>',
      '<tool_call>{"name": "a", "arguments": [1]}</tool_call>',
      '<tool_call>{name: "a", "arguments": {}}</tool_call>',
      '<tool_call>{"name": "a", "arguments": {}}</tool_call><tool_call>oops</tool_call>',
      '<tool_call>[]</tool_call>',
    ])
      assert.equal(parseCalls(hermes, said), undefined, said)
  })
})
