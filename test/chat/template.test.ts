import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { strftime } from '../../lib/chat/jinja.ts'
import { renderWithSpans } from '../../lib/chat/spans.ts'
import { ChatTemplate, chooseTemplate } from '../../lib/chat/template.ts'
import type { Tokenizer } from '../../lib/chat/tokenizer.ts'
import type { Message } from '../../lib/data/conversation.ts'
import { failure, temporaryFolder } from '../data/helpers.ts'
import { describeShared, shared } from '../shared.ts'
import { conversation, realTokenizer, template, toyTokenizer } from './helpers.ts'

const CHATML = ['<|im_start|>', '<|im_end|>']
const { messages } = conversation(['system', 'Be brief.'], ['user', 'Hi'], ['assistant', 'Hello'])

describe('rendering', () => {
  const { path } = temporaryFolder()
  let tokenizer: Tokenizer
  before(async () => {
    tokenizer = await toyTokenizer(path('toy'), { special: ['<s>', '</s>', ...CHATML], bos: '<s>', eos: '</s>' })
  })
  const render = (source: string, variables: Record<string, unknown> = {}, list: Message[] = messages) =>
    template(tokenizer, source, variables).render(list)

  it('has the blocks, whitespace and variables of Transformers', () => {
    const source = `{%- for m in messages %}
  {%- if m.role == 'user' %}
    {{ m.content }}
  {% endif %}
{%- endfor %}
{% if true %}
x
{% endif %}
`
    assert.equal(render(source), '    Hi\nx\n')
    assert.equal(render('{{ bos_token }}|{{ eos_token }}|{{ pad_token }}|{{ tools is none }}'), '<s>|</s>||True')
    assert.equal(
      render('{% if enable_thinking is defined and not enable_thinking %}no{% endif %}', { enable_thinking: false }),
      'no',
    )
  })

  it('strips what Python strips', () => {
    const strip = (expression: string, content: string) =>
      render(`{{ messages[0].content${expression} }}`, {}, [{ role: 'user', content }])
    assert.equal(strip(".lstrip('\\n')", '\n\n  a \n'), '  a \n')
    assert.equal(strip(".rstrip('\\n')", '\n a \n\n'), '\n a ')
    assert.equal(strip(".strip('xy')", 'xyaxby'), 'axb')
    assert.equal(strip('.strip()', '\u001c\u0085 a\u3000\n'), 'a')
    assert.equal(strip('.strip()', '\ufeffa '), '\ufeffa')
    assert.equal(strip(' | trim', '\n\u001f a\t'), 'a')
    assert.equal(strip('.split("|")[0].rstrip("\\n").lstrip("b")', 'bba\n|c'), 'a')
  })

  it('strips everywhere in a template, whatever else stands there', () => {
    const source =
      '{% set later = messages[1:] %}{% for m in later %}{% set c = m.content | trim %}{{ c }}|{% endfor %}'
    const list: Message[] = ['a', '\ufeffb ', ' c\u001c'].map((content) => ({ role: 'user', content }))
    assert.equal(render(source, {}, list), '\ufeffb|c|')
  })

  it('adds only what Python adds', () => {
    assert.equal(render('{{ 1 + 2 }}{{ "a" + "b" }}{{ ([1] + [2]) | length }}{{ 1.5 + 1 }}'), '3ab22.5')
    assert.throws(() => render('{{ "a" + messages[0] }}'), /cannot add str and dict/)
    assert.throws(() => render('{{ 1 + "a" }}'), /cannot add int and str/)
    assert.throws(() => render('{{ "a" + none }}'), /cannot add str and None/)
  })

  it('reads templates with any line end', () => {
    assert.equal(render('{% if true %}\r\na\r\n{% endif %}\r\nb'), 'a\nb')
  })

  it('writes JSON as Transformers does', () => {
    const tool = { name: 'é<&>', list: [1, 2.5, null, true], nested: { z: {}, a: [] } }
    const text = template(tokenizer, '{{ tools[0] | tojson }}').render(messages, { tools: [tool] })
    assert.equal(text, '{"name": "é<&>", "list": [1, 2.5, null, true], "nested": {"z": {}, "a": []}}')
  })

  it('tells the date once for a run, in the C locale', () => {
    assert.equal(
      render('{{ strftime_now("%d %b %Y, %A %H:%M:%S %p %-d %j") }}'),
      '05 Jan 2026, Monday 14:03:09 PM 5 005',
    )
    assert.equal(strftime(new Date(2024, 11, 31), '%j %y%%'), '366 24%')
    assert.throws(() => render('{{ strftime_now("%Q") }}'), /unknown directive %Q/)
  })

  it('stops with the words of raise_exception', () => {
    assert.throws(() => render('{{ raise_exception("Roles must alternate") }}'), /^Error: Roles must alternate$/)
  })

  it('does not show weights to the template', () => {
    const weighted = [{ ...messages[1]!, weight: 0.5 }]
    assert.equal(
      render('{{ messages[0].weight is defined }}{{ messages[0] | tojson }}', {}, weighted),
      'False{"role": "user", "content": "Hi"}',
    )
  })

  it('uses the tool_use template of a list for conversations with tools', () => {
    const both = new ChatTemplate(tokenizer, {
      name: 'model',
      sources: new Map([
        ['default', 'plain'],
        ['tool_use', 'tools'],
      ]),
    })
    assert.equal(both.render(messages), 'plain')
    assert.equal(both.render(messages, { tools: [{}] }), 'tools')
    assert.equal(both.source, 'plain')
  })
})

describe('what a template says when it fails', () => {
  const { path } = temporaryFolder()

  it('names the variable with which turn and prompt agree', async () => {
    const tokenizer = await toyTokenizer(path('variables'), { special: CHATML })
    const source =
      '{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.reasoning %}<think>{{ m.reasoning }}</think>{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% if quiet is defined and quiet %}<think></think>{% endif %}{% endif %}'
    const row = conversation(['user', 'Hi'], ['assistant', 'Hello', { reasoning: 'Greet.' }])
    const refused = (variables: Record<string, unknown>, text = source) => {
      try {
        renderWithSpans(template(tokenizer, text, variables), row, [1], 'split')
      } catch (error) {
        return (error as Error).message
      }
      return undefined
    }
    assert.equal(refused({}), undefined)
    const message = refused({ quiet: true })
    assert.match(message!, /prompt ends in ".*<\|im_start\|>assistant\\n<think><\/think>", but/)
    assert.match(message!, /rendered as ".*<\|im_start\|>assistant\\n<think>Greet\.<\/think>/)
    assert.match(message!, /With templateVariables \{ quiet: false \} they agree$/)
    const always = source.replace('{% if quiet is defined and quiet %}<think></think>{% endif %}', '<think></think>')
    assert.match(refused({}, always)!, /Change the turn or use a chatTemplate whose prompt agrees$/)
    assert.match(
      refused({ other: 1 }, always)!,
      /templateVariables sets other: change that, the turn or the chatTemplate$/,
    )
  })

  it('names a token that the tokenizer lacks', async () => {
    const tokenizer = await toyTokenizer(path('lacks'), { special: CHATML })
    const own = template(tokenizer, '{{ bos_token + messages[0].content }}')
    assert.throws(() => own.render(messages), /^Error: it writes bos_token, and the tokenizer has none: set bos_token/)
    const others = template(tokenizer, '{{ messages[0].content + messages[0].nothing }}')
    assert.throws(() => others.render(messages), /'messages\[0\]\.nothing' is undefined|\.nothing' is undefined/)
  })
})

describe('choice of the template', () => {
  const { path, write } = temporaryFolder()

  it("is the model's own", async () => {
    const tokenizer = await toyTokenizer(path('own'), { special: CHATML, config: { chat_template: 'own' } })
    const { template: own, fallback } = await chooseTemplate('model', tokenizer)
    assert.deepEqual([own.name, own.source, fallback], ['model', 'own', undefined])
  })

  it('tells a list without a default, and variables that are never read', async () => {
    const list = [{ name: 'rag', template: '{{ documents }}{% if lang is defined %}{{ lang }}{% endif %}' }]
    const tokenizer = await toyTokenizer(path('rag'), { special: CHATML, config: { chat_template: list } })
    const variables = { lang: 'de', langg: 'de' }
    const { template: own, fallback, unread } = await chooseTemplate('model', tokenizer, { variables })
    assert.deepEqual(own.readVariables, ['lang'])
    assert.match(fallback!, /named "default" \(found "rag"\); using "rag"/)
    assert.match(unread!, /never reads langg; it reads lang$/)
    assert.equal((await chooseTemplate('model', tokenizer, { variables: { lang: 'de' } })).unread, undefined)
  })

  it('knows which variables a caller can set', async () => {
    const tokenizer = await toyTokenizer(path('names'), { special: CHATML })
    const read = (source: string) => template(tokenizer, source).readVariables
    assert.deepEqual(read('{{ a }}{% set b = c %}{{ b }}{{ m.d | e(f) }}{{ messages[g] }}'), ['a', 'c', 'm', 'f', 'g'])
    assert.deepEqual(read('{% set x = x | default(1) %}{% set y = y if y is defined else 2 %}{{ x + y }}'), ['x', 'y'])
    assert.deepEqual(read('{% for k, v in tools %}{{ loop.index }}{{ k }}{{ v is test(w) }}{% endfor %}'), ['w'])
    assert.deepEqual(
      read(
        '{% macro f(p, q=r) %}{{ p }}{{ q }}{{ caller() }}{% endmacro %}{% call(s) f(1) %}{{ s }}{{ t }}{% endcall %}',
      ),
      ['r', 't'],
    )
    assert.deepEqual(read('{{ (a and not b) or (c in d) or -e }}{{ f if g else h }}'), [
      'a',
      'b',
      'c',
      'd',
      'e',
      'g',
      'f',
      'h',
    ])
    assert.deepEqual(read('{% generation %}{{ {"a": u}["a"] }}{% endgeneration %}{{ range(1) }}{{ bos_token }}'), ['u'])
  })

  it('falls back to ChatML where the vocabulary has its tokens', async () => {
    const tokenizer = await toyTokenizer(path('chatml'), { special: ['</s>', ...CHATML], eos: '</s>' })
    const { template: chatml, fallback } = await chooseTemplate('model', tokenizer)
    assert.equal(chatml.name, 'chatml')
    assert.match(fallback!, /no chat template.*"chatml".*<\|im_start\|>/)
    const text =
      '<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n'
    assert.equal(chatml.render(messages), text)
    assert.equal(chatml.render(messages, { addGenerationPrompt: true }), `${text}<|im_start|>assistant\n`)
    assert.deepEqual(
      chatml.stopTokens.map((stop) => stop.text),
      ['<|im_end|>', '</s>'],
    )
  })

  it('falls back to plain dialogue, with bos where the tokenizer adds it', async () => {
    const tokenizer = await toyTokenizer(path('plain'), {
      special: ['<s>', '</s>'],
      bos: '<s>',
      eos: '</s>',
      addsBos: true,
    })
    const { template: plain, fallback } = await chooseTemplate('model', tokenizer)
    assert.match(fallback!, /"plain".*assistant turns end in <\/s>/)
    const text = '<s>Be brief.\n\nUser:\nHi\n\nAssistant:\nHello</s>\n\n'
    assert.equal(plain.render(messages), text)
    assert.equal(
      plain.render(messages.slice(0, 2), { addGenerationPrompt: true }),
      '<s>Be brief.\n\nUser:\nHi\n\nAssistant:\n',
    )
    assert.deepEqual(plain.stopTokens, [{ text: '</s>', id: 257 }])
    // What is exported renders alike on its own.
    assert.equal(template(tokenizer, plain.source).render(messages), text)
  })

  it('refuses plain dialogue without an eos, and ChatML without its tokens', async () => {
    const tokenizer = await toyTokenizer(path('bare'))
    await assert.rejects(
      chooseTemplate('model', tokenizer),
      failure('ERR_NO_EOS', 'no eos token', 'tokenizer_config.json'),
    )
    await assert.rejects(chooseTemplate('plain', tokenizer), failure('ERR_NO_EOS'))
    await assert.rejects(chooseTemplate('chatml', tokenizer), failure('ERR_TEMPLATE', '<|im_start|>'))
  })

  it('may be a file', async () => {
    const tokenizer = await toyTokenizer(path('file'), { special: CHATML })
    const file = await write('my.jinja', '{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}')
    const { template: own } = await chooseTemplate(file, tokenizer)
    assert.equal(own.name, file)
    assert.deepEqual(
      own.stopTokens.map((stop) => stop.text),
      ['<|im_end|>'],
    )
    await assert.rejects(
      chooseTemplate('chatmll', tokenizer),
      failure('ERR_TEMPLATE_NOT_FOUND', '"chatmll"', '"chatml", "llama3"'),
    )
    await writeFile(file, '{% for m in messages %}')
    await assert.rejects(chooseTemplate(file, tokenizer), failure('ERR_TEMPLATE', file, 'does not parse'))
  })

  it('writes tool calls and tools in both built-in templates', async () => {
    const tokenizer = await toyTokenizer(path('tools'), { special: ['</s>', ...CHATML], eos: '</s>' })
    const call = { type: 'function', function: { name: 'add', arguments: { a: 1 } } }
    const chat = conversation(
      ['user', '1+1?'],
      ['assistant', '', { content: null, tool_calls: [call, call] }],
      ['tool', '2'],
      ['assistant', 'Two'],
    )
    const tools = [{ type: 'function', function: { name: 'add' } }]
    const rendered = async (name: string) =>
      (await chooseTemplate(name, tokenizer)).template.render(chat.messages, { tools })
    const chatml = await rendered('chatml')
    assert.match(chatml, /^<\|im_start\|>system\nYou may call/)
    assert.ok(chatml.includes('<tools>\n{"type": "function", "function": {"name": "add"}}\n</tools><|im_end|>\n'))
    const json = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
    assert.ok(chatml.includes(`<|im_start|>assistant\n${json}\n${json}<|im_end|>\n<|im_start|>tool\n2<|im_end|>\n`))
    const plain = await rendered('plain')
    const line = 'Call: {"name": "add", "arguments": {"a": 1}}'
    assert.equal(
      plain,
      'Tools:\n{"type": "function", "function": {"name": "add"}}\n\nUser:\n1+1?\n\n' +
        `Assistant:\n${line}\n${line}</s>\n\nTool:\n2\n\nAssistant:\nTwo</s>\n\n`,
    )
  })
})

describeShared('templates of real models', () => {
  for (const name of ['deepseek_v3', 'llama3', 'minimind', 'qwen3']) {
    it(`${name}: renderings are those of Transformers`, async () => {
      const tokenizer = await realTokenizer(name)
      const { template: own } = await chooseTemplate('model', tokenizer)
      const golden = JSON.parse(readFileSync(shared(`tokenizers/${name}/golden.json`), 'utf8'))
      assert.ok(golden.chat.length > 0)
      for (const { messages: list, tools, add_generation_prompt: addGenerationPrompt, text } of golden.chat) {
        assert.equal(own.render(list, { tools, addGenerationPrompt }), text)
      }
    })
  }
})
