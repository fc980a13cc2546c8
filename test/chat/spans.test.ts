import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { type Rendering, renderWithSpans } from '../../lib/chat/spans.ts'
import { type ChatTemplate, chooseTemplate } from '../../lib/chat/template.ts'
import type { Tokenizer } from '../../lib/chat/tokenizer.ts'
import type { Conversation } from '../../lib/data/conversation.ts'
import { RowProblem } from '../../lib/data/rows.ts'
import { failure, temporaryFolder } from '../data/helpers.ts'
import { describeShared, shared } from '../shared.ts'
import { conversation, dialogues, realTokenizer, template, toyTokenizer } from './helpers.ts'

/** What every template of the tests may write as one token. */
const SPECIAL = [
  '<s>',
  '</s>',
  ...['im_start', 'im_end', 'begin_of_text', 'start_header_id', 'end_header_id', 'eot_id', 'end_of_text'],
  ...['start', 'end', 'message', 'channel', 'return', 'call', 'user', 'assistant', 'system', 'observation'],
].map((name) => (name.startsWith('<') ? name : `<|${name}|>`))

function trained({ messages }: Conversation): number[] {
  return [...messages.keys()].filter((index) => messages[index]!.role === 'assistant')
}

function spans(own: ChatTemplate, chat: Conversation, policy: 'split' | 'error' = 'split'): Rendering[] {
  return renderWithSpans(own, chat, trained(chat), policy)
}

/** The supervised text of every turn, over all renderings. */
function supervised(renderings: readonly Rendering[]): string[] {
  return renderings.flatMap(({ text, spans: found }) => found.map(({ start, end }) => text.slice(start, end)))
}

const answers = (chat: Conversation) =>
  chat.messages.filter(({ role }) => role === 'assistant').map(({ content }) => content!)

const CHATML = `{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}`

describe('spans', () => {
  const { path } = temporaryFolder()
  let tokenizer: Tokenizer
  before(async () => {
    tokenizer = await toyTokenizer(path('toy'), { special: SPECIAL, bos: '<s>', eos: '</s>', addsBos: true })
  })

  it('are the replies and their stop tokens, without the newline after them', () => {
    const chat = conversation(['system', 's'], ['user', 'q'], ['assistant', 'one'], ['user', 'r'], ['assistant', 'two'])
    const [rendering, ...others] = spans(template(tokenizer, CHATML), chat)
    assert.equal(others.length, 0)
    assert.equal(rendering!.text.endsWith('two<|im_end|>\n'), true)
    assert.deepEqual(supervised([rendering!]), ['one<|im_end|>', 'two<|im_end|>'])
    assert.deepEqual(
      rendering!.spans.map(({ turn }) => turn),
      [2, 4],
    )
  })

  it('are exact for random conversations, in every built-in template', async () => {
    for (const name of ['chatml', 'plain']) {
      const { template: own } = await chooseTemplate(name, tokenizer)
      fc.assert(
        fc.property(dialogues, (chat) => {
          const renderings = spans(own, chat, 'error')
          assert.equal(renderings.length, 1)
          const expected = answers(chat).map((text) => (name === 'plain' ? `${trim(text)}</s>` : `${text}<|im_end|>`))
          assert.deepEqual(supervised(renderings), expected)
        }),
      )
    }
  })

  it('look past stop tokens that a reply spells itself', () => {
    const chat = conversation(
      ['user', 'How do turns end?'],
      ['assistant', 'With <|im_end|> and</s>.'],
      ['user', 'x'],
      ['assistant', 'y'],
    )
    assert.deepEqual(supervised(spans(template(tokenizer, CHATML), chat)), [
      'With <|im_end|> and</s>.<|im_end|>',
      'y<|im_end|>',
    ])
  })

  it('begin at the reply where a conversation opens with one', () => {
    const opening = conversation(['assistant', 'Welcome'], ['user', 'Hi'], ['assistant', 'Yes?'])
    assert.deepEqual(supervised(spans(template(tokenizer, CHATML), opening)), ['Welcome<|im_end|>', 'Yes?<|im_end|>'])
    const fragile = `${'{{ raise_exception("empty") if messages | length == 0 }}'}${CHATML}`
    assert.deepEqual(supervised(spans(template(tokenizer, fragile), opening)), ['Welcome<|im_end|>', 'Yes?<|im_end|>'])
  })

  it('hold for templates that always end in a generation prompt', () => {
    const always = CHATML.replace('{% if add_generation_prompt %}', '{% if true %}')
    const chat = conversation(['user', 'q'], ['assistant', 'one'], ['user', 'r'], ['assistant', 'two'])
    assert.deepEqual(supervised(spans(template(tokenizer, always), chat)), ['one<|im_end|>', 'two<|im_end|>'])
  })

  it('include tool calls, and exclude their results', () => {
    const call = { type: 'function', function: { name: 'f', arguments: '{}' } }
    const chat = conversation(
      ['user', 'q'],
      ['assistant', '', { content: null, tool_calls: [call] }],
      ['tool', '2'],
      ['assistant', 'Two'],
    )
    const source = CHATML.replace(
      '{{ m.content }}',
      '{{ m.content or "" }}{% for c in m.tool_calls or [] %}<call>{{ c.function.name }}</call>{% endfor %}',
    )
    assert.deepEqual(supervised(spans(template(tokenizer, source), chat)), [
      '<call>f</call><|im_end|>',
      'Two<|im_end|>',
    ])
  })

  it('report what the template refuses as a problem of the row', () => {
    const own = template(
      tokenizer,
      `{% if messages[0].role == 'system' %}{{ raise_exception('No system turns') }}{% endif %}${CHATML}`,
    )
    const chat = conversation(['system', 's'], ['user', 'q'], ['assistant', 'a'])
    assert.throws(
      () => spans(own, chat),
      (error) => error instanceof RowProblem && /refuses them: No system turns/.test(error.message),
    )
  })

  it('are refused where a turn has no stop token', () => {
    const bare = template(tokenizer, '{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}')
    assert.throws(
      () => spans(bare, conversation(['user', 'q'], ['assistant', 'a'])),
      failure('ERR_STOP_TOKEN_UNTRAINED', 'train.jsonl:3', 'messages[1]', '</s>'),
    )
  })

  it('are refused where the generation prompt does not precede the reply', () => {
    const own = template(tokenizer, CHATML.replace('assistant\n{% endif %}', 'assistant\n<think>\n{% endif %}'))
    assert.throws(
      () => spans(own, conversation(['user', 'q'], ['assistant', 'a'])),
      (error) => error instanceof RowProblem && error.field === 'messages[1]' && error.message.includes('<think>'),
    )
  })

  describe('where history is rewritten', () => {
    /** Reasoning stays in the last turn only. */
    const REWRITING = CHATML.replace(
      '{{ m.content }}',
      "{{ m.content if loop.last else m.content.split('</think>')[-1] }}",
    )
    const chat = conversation(
      ['user', 'q'],
      ['assistant', '<think>a</think>one'],
      ['user', 'r'],
      ['assistant', '<think>b</think>two'],
    )

    it('are each in a rendering of their own, in the context of inference', () => {
      const own = template(tokenizer, REWRITING)
      const renderings = spans(own, chat)
      assert.deepEqual(supervised(renderings), ['<think>a</think>one<|im_end|>', '<think>b</think>two<|im_end|>'])
      assert.equal(renderings.length, 2)
      for (const { text, spans: found } of renderings) {
        const { start, turn } = found[0]!
        assert.equal(text.slice(0, start), own.render(chat.messages.slice(0, turn), { addGenerationPrompt: true }))
      }
      assert.equal(renderings[0]!.newFrom, 0)
      assert.equal(
        renderings[1]!.text.slice(0, renderings[1]!.newFrom),
        '<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\none<|im_end|>',
      )
    })

    it('stay together as far as nothing changes', () => {
      const mixed = conversation(
        ['user', 'q'],
        ['assistant', 'one'],
        ['user', 'r'],
        ['assistant', '<think>b</think>two'],
        ['user', 's'],
        ['assistant', 'three'],
      )
      const renderings = spans(template(tokenizer, REWRITING), mixed)
      assert.deepEqual(
        renderings.map((rendering) => rendering.spans.map(({ turn }) => turn)),
        [[3], [1, 5]],
      )
    })

    it('need no split where the turn that changes is not trained', () => {
      const [rendering, ...others] = renderWithSpans(template(tokenizer, REWRITING), chat, [3], 'error')
      assert.equal(others.length, 0)
      assert.deepEqual(supervised([rendering!]), ['<think>b</think>two<|im_end|>'])
    })

    it("are refused under 'error', with the difference", () => {
      assert.throws(
        () => spans(template(tokenizer, REWRITING), chat, 'error'),
        failure('ERR_HISTORY_REWRITE', 'train.jsonl:3', 'messages[1]', '<think>a', 'becomes', 'historyRewrite'),
      )
    })
  })

  describe('from generation tags', () => {
    const tagged = (body: string) =>
      `{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{% if m.role == 'assistant' %}${body}{% else %}{{ m.content + '<|im_end|>\\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}`
    const TAGGED = tagged("{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}")

    it('are what the tags enclose, and the rendering is the one without them', () => {
      const own = template(tokenizer, TAGGED)
      const untagged = template(tokenizer, TAGGED.replaceAll(/{% (end)?generation %}/g, ''))
      assert.equal(own.tagged, true)
      fc.assert(
        fc.property(dialogues, (chat) => {
          const renderings = spans(own, chat, 'error')
          assert.deepEqual(renderings, spans(untagged, chat, 'error'))
          assert.deepEqual(
            supervised(renderings),
            answers(chat).map((text) => `${text}<|im_end|>`),
          )
        }),
      )
    })

    it('may include whitespace after the stop token, as the template says', () => {
      const own = template(
        tokenizer,
        tagged("{%- generation -%} {{ m.content + '<|im_end|>\\n' }} {%- endgeneration -%}  "),
      )
      const chat = conversation(['user', 'q'], ['assistant', 'one'], ['user', 'r'], ['assistant', 'two'])
      assert.deepEqual(supervised(spans(own, chat)), ['one<|im_end|>\n', 'two<|im_end|>\n'])
    })

    it('may be several in a turn', () => {
      const own = template(
        tokenizer,
        tagged('{% generation %}{{ m.content }}{% endgeneration %}--{% generation %}<|im_end|>{% endgeneration %}'),
      )
      const [rendering] = spans(
        own,
        conversation(['user', 'q'], ['assistant', 'one'], ['user', 'r'], ['assistant', 'two']),
      )
      assert.deepEqual(supervised([rendering!]), ['one', '<|im_end|>', 'two', '<|im_end|>'])
      assert.deepEqual(
        rendering!.spans.map(({ turn }) => turn),
        [1, 1, 3, 3],
      )
    })

    it('are refused without the stop token', () => {
      const own = template(tokenizer, tagged("{% generation %}{{ m.content }}{% endgeneration %}{{ '<|im_end|>\\n' }}"))
      assert.throws(
        () => spans(own, conversation(['user', 'q'], ['assistant', 'a'])),
        failure('ERR_STOP_TOKEN_UNTRAINED', 'generation', 'train.jsonl:3'),
      )
    })

    it('are refused where marking them changes the rendering', () => {
      const own = template(
        tokenizer,
        tagged(
          '{% set body %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{% endset %}{{ body[:4] }}<|im_end|>',
        ),
      )
      assert.throws(
        () => spans(own, conversation(['user', 'q'], ['assistant', 'answer'])),
        failure('ERR_TEMPLATE', 'generation'),
      )
    })

    it('do not meet their own marks in a text', () => {
      assert.throws(
        () => spans(template(tokenizer, TAGGED), conversation(['user', '\ufdd0'], ['assistant', 'a'])),
        (error) => error instanceof RowProblem && /U\+FDD0/.test(error.message),
      )
    })
  })
})

/** Python's str.strip for the characters that the generators make. */
function trim(text: string): string {
  return text.replace(/^\p{White_Space}+|\p{White_Space}+$/gu, '')
}

describeShared('spans in templates of real models', () => {
  const { path } = temporaryFolder()
  const think = (text: string) => `<think>\n\n</think>\n\n${text.replace(/^\n+/, '')}`
  const expected: Record<string, (text: string) => string> = {
    deepseek_v3: (text) => `${text}<｜end▁of▁sentence｜>`,
    llama3: (text) => `${trim(text)}<|eot_id|>`,
    minimind: (text) => `${text.replace(/^\n+/, '')}<|im_end|>`,
    qwen3: (text) => `${think(text)}<|im_end|>`,
    lfm2_5JinjaTemplate: (text) => `${text}<|im_end|>`,
    harmonyJinjaTemplate: (text) => `<|channel|>final<|message|>${text}<|return|>`,
  }
  let toy: Tokenizer
  before(async () => {
    toy = await toyTokenizer(path('toy'), { special: SPECIAL, bos: '<s>', eos: '</s>' })
  })

  for (const [name, supervisedText] of Object.entries(expected)) {
    it(`${name}: contents as rendered plus stop tokens, and nothing else`, async () => {
      const own = name.endsWith('Template')
        ? template(toy, readFileSync(shared(`templates/${name}.jinja`), 'utf8'))
        : (await chooseTemplate('model', await realTokenizer(name))).template
      fc.assert(
        fc.property(dialogues, (chat) => {
          const renderings = spans(own, chat)
          assert.deepEqual(supervised(renderings), answers(chat).map(supervisedText))
          for (const { text, spans: found } of renderings) {
            for (const { start, turn } of found) {
              assert.equal(
                text.slice(0, start),
                own.render(chat.messages.slice(0, turn), { addGenerationPrompt: true }),
              )
            }
          }
        }),
        { numRuns: 40 },
      )
    })
  }

  it('glm4_5air is refused: nothing ends its turns', () => {
    const own = template(toy, readFileSync(shared('templates/glm4_5airJinjaTemplate.jinja'), 'utf8'))
    assert.throws(
      () => spans(own, conversation(['user', 'q'], ['assistant', 'a'])),
      failure('ERR_STOP_TOKEN_UNTRAINED'),
    )
  })
})
