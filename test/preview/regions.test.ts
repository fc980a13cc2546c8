import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { ChatTemplate } from '../../lib/chat/template.ts'
import type { Tokenizer } from '../../lib/chat/tokenizer.ts'
import type { Conversation, Message, ToolCall } from '../../lib/data/conversation.ts'
import { regionsOf } from '../../lib/preview/regions.ts'
import { golden, NOW, type Renderings, readMessages, readTools } from '../chat/golden.ts'
import { conversation, toyTokenizer, words } from '../chat/helpers.ts'
import { temporaryFolder } from '../data/helpers.ts'
import { hasShared, itShared, shared } from '../shared.ts'

const SPECIAL = [
  ...['<s>', '</s>', '<|im_start|>', '<|im_end|>', '<|eot_id|>', '<|start_header_id|>', '<|end_header_id|>'],
  ...[
    '<|end|>',
    '<|return|>',
    '<|call|>',
    '<|start|>',
    '<|message|>',
    '<|channel|>',
    '<end_of_turn>',
    '<start_of_turn>',
  ],
  ...[
    '<|user|>',
    '<|assistant|>',
    '<|system|>',
    '<|observation|>',
    '<｜end▁of▁sentence｜>',
    '<｜User｜>',
    '<｜Assistant｜>',
  ],
]
const WEATHER = {
  type: 'function',
  function: { name: 'weather', description: 'Tells.', parameters: { type: 'object' } },
}

function call(city: string): ToolCall {
  return { id: 'c', type: 'function', function: { name: 'weather', arguments: { city } } }
}

describe('regions of a rendering', () => {
  const { path } = temporaryFolder()
  const { templates, conversations } = golden<Renderings>('renderings.json.gz')
  const sources = templates.filter(({ name }) => !name.startsWith('tokenizers/'))
  let tokenizer: Tokenizer
  before(async () => {
    tokenizer = await toyTokenizer(path('toy'), { special: SPECIAL, bos: '<s>', eos: '</s>' })
  })

  function make(source: string): ChatTemplate {
    return new ChatTemplate(tokenizer, { name: 'test', sources: new Map([['default', source]]), now: NOW })
  }

  function named(name: string): ChatTemplate {
    const { source } = sources.find((template) => template.name === name)!
    return make(source ?? readFileSync(shared(name), 'utf8'))
  }

  function shown(template: ChatTemplate, row: Conversation): [string, string][] {
    const text = template.render(row.messages, { tools: row.tools })
    return regionsOf(text, row, template).map(({ role, start, end }) => [role, text.slice(start, end)])
  }

  const chat = conversation(
    ['system', 'Be terse.  \n'],
    ['user', 'One?'],
    ['assistant', 'two'],
    ['user', 'Three?'],
    ['assistant', 'four'],
  )
  const tools: Conversation = {
    ...conversation(['user', 'Rain?']),
    tools: [WEATHER],
  }
  tools.messages.push(
    { role: 'assistant', content: '', tool_calls: [call('Rome'), call('Paris')] },
    { role: 'tool', content: '{"rain": 1}' },
    { role: 'tool', content: '{"rain": 2}' },
    { role: 'assistant', content: 'Both.' },
    { role: 'user', content: 'Thanks.' },
    { role: 'assistant', content: 'Welcome.' },
  )

  it('give each header to the role that it introduces', () => {
    assert.deepEqual(shown(named('builtin/chatml'), chat), [
      ['system', '<s><|im_start|>system\nBe terse.  \n<|im_end|>\n'],
      ['user', '<|im_start|>user\nOne?<|im_end|>\n'],
      ['assistant', '<|im_start|>assistant\ntwo<|im_end|>\n'],
      ['user', '<|im_start|>user\nThree?<|im_end|>\n'],
      ['assistant', '<|im_start|>assistant\nfour<|im_end|>\n'],
    ])
    assert.deepEqual(shown(named('builtin/mistral'), chat), [
      ['system', '<s>[INST] Be terse.  \n'],
      ['user', '\n\nOne? [/INST]'],
      ['assistant', ' two</s>'],
      ['user', '[INST] Three? [/INST]'],
      ['assistant', ' four</s>'],
    ])
    const bracketed = make(
      '{% for m in messages %}{% if m.role == "assistant" %}{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}{% else %}[{{ m.content }}]{% endif %}{% endfor %}',
    )
    assert.deepEqual(shown(bracketed, chat).slice(0, 3), [
      ['system', '[Be terse.  \n]'],
      ['user', '[One?]'],
      ['assistant', 'two</s>'],
    ])
  })

  itShared('also where every rendering ends in a generation prompt', () => {
    const header = (role: string) => `<|start_header_id|>${role}<|end_header_id|>\n\n`
    assert.deepEqual(shown(named('templates/llama3.jinja'), chat), [
      ['system', `<s>${header('system')}Be terse.<|eot_id|>`],
      ['user', `${header('user')}One?<|eot_id|>`],
      ['assistant', `${header('assistant')}two<|eot_id|>`],
      ['user', `${header('user')}Three?<|eot_id|>`],
      ['assistant', `${header('assistant')}four<|eot_id|>`],
      ['assistant', header('assistant')],
    ])
  })

  itShared('give the results of tools in a block of the user to the tools, whatever is rewritten before', () => {
    for (const name of ['templates/qwen3.jinja', 'templates/minimind.jinja']) {
      const regions = shown(named(name), tools)
      const think = name.includes('minimind') ? '<think>\n\n</think>\n\n' : ''
      assert.match(regions[0]!.join(), /^tools,<\|im_start\|>system\n# Tools[\s\S]*<\|im_end\|>\n$/)
      const calls = ['Rome', 'Paris'].map(
        (city) => `<tool_call>\n{"name": "weather", "arguments": {"city": "${city}"}}\n</tool_call>`,
      )
      assert.deepEqual(regions.slice(1), [
        ['user', '<|im_start|>user\nRain?<|im_end|>\n'],
        ['assistant', `<|im_start|>assistant\n${think}${calls.join('\n')}<|im_end|>\n`],
        ['tool', '<|im_start|>user\n<tool_response>\n{"rain": 1}\n</tool_response>'],
        ['tool', '\n<tool_response>\n{"rain": 2}\n</tool_response><|im_end|>\n'],
        ['assistant', `<|im_start|>assistant\n${think}Both.<|im_end|>\n`],
        ['user', '<|im_start|>user\nThanks.<|im_end|>\n'],
        ['assistant', '<|im_start|>assistant\n<think>\n\n</think>\n\nWelcome.<|im_end|>\n'],
      ])
    }
  })

  itShared('know an answer that is closed differently once others follow', () => {
    const regions = shown(named('templates/harmonyJinjaTemplate.jinja'), chat)
    assert.deepEqual(regions.slice(2), [
      ['assistant', '<|start|>assistant<|channel|>final<|message|>two<|end|>'],
      ['user', '<|start|>user<|message|>Three?<|end|>'],
      ['assistant', '<|start|>assistant<|channel|>final<|message|>four<|return|>'],
    ])
  })

  it('tell turns with equal words, without words, and out of order', () => {
    const chatml = named('builtin/chatml')
    const equal = conversation(['user', 'user'], ['assistant', 'user'], ['user', ''], ['assistant', 'assistant'])
    assert.deepEqual(
      shown(chatml, equal).map(([role]) => role),
      ['user', 'assistant', 'user', 'assistant'],
    )
    const silent = conversation(['user', 'q'], ['assistant', ''], ['tool', '{}'], ['assistant', 'a'])
    silent.messages[1]!.tool_calls = [{ type: 'function', function: { name: 'f', arguments: {} } }]
    assert.deepEqual(
      shown(chatml, silent).map(([role]) => role),
      ['user', 'assistant', 'tool', 'assistant'],
    )
    const hoisting = make(
      "{% for m in messages if m.role == 'system' %}<|system|>{{ m.content }}{% endfor %}{% for m in messages if m.role != 'system' %}<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}",
    )
    const late = conversation(['user', 'q'], ['system', 'brief'], ['assistant', 'a'])
    assert.deepEqual(shown(hoisting, late), [
      ['system', '<|system|>brief'],
      ['user', '<|user|>q</s>'],
      ['assistant', '<|assistant|>a</s>'],
    ])
  })

  it('name what the template writes before the first message', () => {
    const chatty = make(
      '<|system|>Today is Monday.</s>{% for m in messages %}<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}',
    )
    assert.deepEqual(shown(chatty, conversation(['user', 'q'], ['assistant', 'a'])), [
      ['template', '<|system|>Today is Monday.</s>'],
      ['user', '<|user|>q</s>'],
      ['assistant', '<|assistant|>a</s>'],
    ])
  })

  it('cover a text that is the beginning of a rendering', () => {
    const template = named('builtin/chatml')
    const whole = template.render(chat.messages)
    const text = whole.slice(0, whole.indexOf('two') + 1)
    const regions = regionsOf(text, chat, template)
    assert.deepEqual(
      regions.map(({ role }) => role),
      ['system', 'user', 'assistant'],
    )
    assert.equal(regions.at(-1)!.end, text.length)
  })

  /** Regions side by side cover the text, and unique words lie in a region of their message's role. */
  function check(template: ChatTemplate, row: Conversation, what: string): boolean {
    let text: string
    try {
      text = template.render(row.messages, { tools: row.tools })
    } catch {
      return false
    }
    const regions = regionsOf(text, row, template)
    assert.equal(regions.map(({ start, end }) => text.slice(start, end)).join(''), text, what)
    let at = 0
    for (const { start, end } of regions) {
      assert.ok(start === at && end > start, what)
      at = end
    }
    for (const [index, { role, content }] of row.messages.entries()) {
      const own = typeof content === 'string' ? content.trim() : ''
      const start = own === '' ? -1 : text.indexOf(own)
      if (start < 0 || text.includes(own, start + 1)) continue
      const region = regions.find((each) => each.start <= start && start + own.length <= each.end)
      assert.equal(region?.role, role, `${what}, messages[${index}] in ${JSON.stringify(text)}`)
    }
    return true
  }

  const random: fc.Arbitrary<Conversation> = fc
    .record({
      first: fc.constantFrom('', 'system'),
      exchanges: fc.array(fc.record({ question: words, answer: words, calls: fc.integer({ min: 0, max: 2 }) }), {
        minLength: 1,
        maxLength: 3,
      }),
      withTools: fc.boolean(),
    })
    .map(({ first, exchanges, withTools }) => {
      let count = 0
      // Words of which the text has no others.
      const unique = (text: string) => `${text}q${count}w${count++}e`
      const messages: Message[] = first === '' ? [] : [{ role: 'system', content: unique('Be kind. ') }]
      for (const { question, answer, calls } of exchanges) {
        messages.push({ role: 'user', content: unique(question) })
        if (withTools && calls > 0) {
          const made = Array.from({ length: calls }, () => call(unique('c')))
          messages.push({ role: 'assistant', content: '', tool_calls: made })
          for (let i = 0; i < calls; i++) messages.push({ role: 'tool', content: unique('r') })
        }
        messages.push({ role: 'assistant', content: `${unique('a')}${answer}` })
      }
      return { messages, ...(withTools && { tools: [WEATHER] }), source: { file: 'x', line: 1 } }
    })

  for (const { name, source } of sources) {
    const test = source === undefined ? itShared : it
    test(`of ${name}`, function (this: Mocha.Context) {
      this.timeout(60_000)
      const template = source === undefined ? named(name) : make(source)
      let rendered = 0
      for (const golden of conversations) {
        const messages = readMessages(golden.messages)
        for (const [index, message] of messages.entries())
          if (typeof message.content === 'string' && message.content.trim() !== '') message.content += ` u${index}v`
        const toolList = readTools(golden.tools)
        const row = { messages, ...(toolList && { tools: toolList }), source: { file: 'x', line: 1 } }
        if (check(template, row, golden.name)) rendered++
      }
      assert.ok(rendered > 10)
      fc.assert(
        fc.property(random, (row) => {
          check(template, row, JSON.stringify(row.messages))
        }),
        { numRuns: 15 },
      )
    })
  }

  it('are held against every template there is', () => {
    assert.ok(sources.length >= (hasShared() ? 45 : 40))
  })
})
