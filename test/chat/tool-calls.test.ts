import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { prepare } from '../../lib/batch/prepare.ts'
import { ChatTemplate } from '../../lib/chat/template.ts'
import { Tokenizer } from '../../lib/chat/tokenizer.ts'
import { asRendered, checkCallsRendered, substitutes, withEmptyContent } from '../../lib/chat/tool-calls.ts'
import type { Conversation } from '../../lib/data/conversation.ts'
import { parseExactJson } from '../../lib/data/exact-json.ts'
import { prepareOptions } from '../batch/helpers.ts'
import { itShared, shared } from '../shared.ts'
import { scratchFolder } from '../trainer/runs.ts'

const base = fileURLToPath(new URL('../../assets/base', import.meta.url))
const head = '{% for m in messages %}<|im_start|>{{ m.role }}\n'
const tail = '<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}'
const callsOf = '{% for c in m.tool_calls or [] %}{{ c.function.name + ": " + ARGUMENTS }}{% endfor %}'

const templates = {
  strict: `${head}{{ m.content + "" }}${callsOf.replace('ARGUMENTS', 'c.function.arguments | tojson')}${tail}`,
  text: `${head}{{ m.content + "" }}${callsOf.replace('ARGUMENTS', 'c.function.arguments')}${tail}`,
  deaf: `${head}{{ m.content }}${tail}`,
  fussy: `${head}{% if m.content is none %}${callsOf.replace('ARGUMENTS', 'c.function.arguments')}{% else %}{{ m.content }}{% endif %}${tail}`,
}

async function make(source: string): Promise<ChatTemplate> {
  return new ChatTemplate(await Tokenizer.load(base), { name: 'test', sources: new Map([['default', source]]) })
}

const row = (content: string | null = null) => ({
  messages: [
    { role: 'user', content: 'Weather in Ulm?' },
    {
      role: 'assistant',
      content,
      tool_calls: [{ type: 'function', function: { name: 'weather', arguments: { city: 'Ulm' } } }],
    },
  ],
})
const conversation = (content?: string | null) => ({ ...row(content), source: { file: 'a', line: 1 } }) as Conversation

describe('tool calls that a template does not expect', () => {
  it('have empty content put in place of none, and only there', () => {
    assert.equal(withEmptyContent(conversation('Let me see.')), undefined)
    const filled = withEmptyContent(conversation())!
    assert.deepEqual(
      filled.messages.map(({ content }) => content),
      ['Weather in Ulm?', ''],
    )
    assert.equal(conversation().messages[1]!.content, null)
  })

  it('are missed where the template leaves them out', async () => {
    checkCallsRendered(await make(templates.strict), conversation('Let me see.'))
    const deaf = await make(templates.deaf)
    assert.throws(() => checkCallsRendered(deaf, conversation()), {
      field: 'messages[1].tool_calls',
      message: /leaves out 1 of the 1 tool calls/,
    })
  })

  it('have their arguments in the form that a template takes', async () => {
    assert.deepEqual(
      substitutes(conversation()).map(({ conversation: { messages }, filled, arguments: form }) => [
        messages[1]!.content,
        messages[1]!.tool_calls![0]!.function.arguments,
        filled,
        form,
      ]),
      [
        ['', { city: 'Ulm' }, true, undefined],
        [null, '{"city": "Ulm"}', false, 'JSON text'],
        ['', '{"city": "Ulm"}', true, 'JSON text'],
      ],
    )
    const text = asRendered(await make(templates.text), conversation())
    assert.equal(text.messages[1]!.tool_calls![0]!.function.arguments, '{"city": "Ulm"}')
    // As the row spells its numbers, and back.
    const spelt = parseExactJson('{"a": 1.0, "b": [1e3, "x"], "c": 12345678901234567890}')
    const [message] = conversation('x').messages.slice(1)
    const asked: Conversation = {
      messages: [{ ...message!, tool_calls: [{ function: { name: 'f', arguments: spelt } }] }],
      source: { file: 'a', line: 1 },
    }
    const [written] = substitutes(asked)
    const json = written!.conversation.messages[0]!.tool_calls![0]!.function.arguments
    assert.equal(json, '{"a": 1.0, "b": [1000.0, "x"], "c": 12345678901234567890}')
    const [objects] = substitutes(written!.conversation)
    assert.equal(objects!.arguments, 'objects')
    assert.equal(typeof objects!.conversation.messages[0]!.tool_calls![0]!.function.arguments, 'object')
    const never = await make('{{ raise_exception("never") }}')
    const own = conversation()
    assert.equal(asRendered(never, own), own)
  })

  async function prepared(source: string, rows: object[]) {
    const folder = scratchFolder()
    const [train, template] = [join(folder, 'train.jsonl'), join(folder, 'template.jinja')]
    writeFileSync(train, rows.map((each) => `${JSON.stringify(each)}\n`).join(''))
    writeFileSync(template, source)
    return prepare(prepareOptions(train, { chatTemplate: template, maxLength: 512 }), await Tokenizer.load(base))
  }

  it('train with empty content, said aloud; never without their calls', async () => {
    const { train, warnings } = await prepared(templates.strict, [row(), row('Let me see.')])
    assert.equal(train.examples.length, 2)
    const warning = warnings.find(({ code }) => code === 'WARN_EMPTY_CONTENT')
    assert.match(warning!.message, /^1 conversation has turns .*train\.jsonl:1$/)
    // Content that is not none hides the calls in the second; arguments that are no text are refused in both.
    for (const [name, count] of [
      ['text', 1],
      ['fussy', 0],
    ] as const) {
      const converted = await prepared(templates[name], [row()])
      assert.equal(converted.train.examples.length, 1)
      const form = converted.warnings.find(({ code }) => code === 'WARN_TOOL_ARGUMENTS')
      assert.match(form!.message, /^1 conversation has arguments .* as JSON text, and have to be.*train\.jsonl:1$/)
      assert.equal(converted.warnings.filter(({ code }) => code === 'WARN_EMPTY_CONTENT').length, count)
    }
    const never = '{{ raise_exception("never") }}'
    await assert.rejects(prepared(never, [row()]), { code: 'ERR_BAD_ROW', message: /refuses them: never/ })
    await assert.rejects(prepared(templates.deaf, [row('')]), { code: 'ERR_BAD_ROW', message: /leaves out 1 of the 1/ })
  })

  itShared('of real data are refused one by one with DeepSeek V3, whose template does not end them', async () => {
    const path = shared('data/tool-calling/glaive_toolcall_en_demo.messages.jsonl')
    const tokenizer = await Tokenizer.load(shared('tokenizers/deepseek_v3'))
    // It ends a turn with several calls in a stop token, and one with a single call in none.
    const refused = {
      code: 'ERR_BAD_ROW',
      message: /refuses them: .*; with the arguments of its calls as JSON text: .*without a stop/,
    }
    await assert.rejects(prepare(prepareOptions(path, { maxLength: 32768 }), tokenizer), refused)
    const { counts } = await prepare(prepareOptions(path, { maxLength: 32768, onBadRow: 'skip' }), tokenizer)
    assert.ok(counts.used > 100 && counts.used < 300)
  })

  itShared('of real data train with Qwen3', async () => {
    const path = shared('data/tool-calling/glaive_toolcall_en_demo.messages.jsonl')
    const tokenizer = await Tokenizer.load(shared('tokenizers/qwen3'))
    const { counts, warnings } = await prepare(prepareOptions(path, { maxLength: 32768 }), tokenizer)
    assert.equal(counts.used, 300)
    assert.match(warnings.find(({ code }) => code === 'WARN_EMPTY_CONTENT')!.message, /^153 conversations/)
  })
})
