import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { prepare } from '../../lib/batch/prepare.ts'
import { ChatTemplate } from '../../lib/chat/template.ts'
import { Tokenizer } from '../../lib/chat/tokenizer.ts'
import { checkCallsRendered, remedy, withEmptyContent } from '../../lib/chat/tool-calls.ts'
import type { Conversation } from '../../lib/data/conversation.ts'
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

  it('have their remedy told where arguments have to be text', async () => {
    assert.match(remedy(await make(templates.text), conversation()), /as JSON text, not as objects/)
    assert.equal(remedy(await make('{{ raise_exception("never") }}'), conversation()), '')
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
    await assert.rejects(prepared(templates.text, [row()]), { code: 'ERR_BAD_ROW', message: /:1: .*as JSON text/ })
    // Content that is not none hides the calls here; arguments that are no text are refused.
    await assert.rejects(prepared(templates.fussy, [row()]), { code: 'ERR_BAD_ROW', message: /as JSON text/ })
    await assert.rejects(prepared(templates.deaf, [row('')]), { code: 'ERR_BAD_ROW', message: /leaves out 1 of the 1/ })
  })

  itShared('of real data train with Qwen3', async () => {
    const path = shared('data/tool-calling/glaive_toolcall_en_demo.messages.jsonl')
    const tokenizer = await Tokenizer.load(shared('tokenizers/qwen3'))
    const { counts, warnings } = await prepare(prepareOptions(path, { maxLength: 32768 }), tokenizer)
    assert.equal(counts.used, 300)
    assert.match(warnings.find(({ code }) => code === 'WARN_EMPTY_CONTENT')!.message, /^153 conversations/)
  })
})
