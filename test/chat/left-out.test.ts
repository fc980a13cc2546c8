import assert from 'node:assert/strict'
import { prepare } from '../../lib/batch/prepare.ts'
import type { Tokenizer } from '../../lib/chat/tokenizer.ts'
import { prepareOptions } from '../batch/helpers.ts'
import { jsonl, temporaryFolder } from '../data/helpers.ts'
import { itShared } from '../shared.ts'
import { realTokenizer, toyTokenizer } from './helpers.ts'

const CHATML = `{% for m in messages %}<|im_start|>{{ m.role }}
{{ CONTENT }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}`

interface Turn {
  role: string
  content: string
  reasoning_content?: string
}

describe('words that a template leaves out', () => {
  const { path, write } = temporaryFolder()
  let tokenizer: Tokenizer
  before(async () => {
    tokenizer = await toyTokenizer(path('toy'), { special: ['</s>', '<|im_start|>', '<|im_end|>'], eos: '</s>' })
  })

  /** What is said of rows under a template that writes `content` for m.content. */
  const told = async (content: string, ...rows: Turn[][]): Promise<string | undefined> => {
    const train = await write('rows.jsonl', jsonl(...rows.map((messages) => ({ messages }))))
    const chatTemplate = await write('t.jinja', CHATML.replace('CONTENT', content))
    const { warnings } = await prepare(prepareOptions(train, { chatTemplate }), tokenizer)
    return warnings.find(({ code }) => code === 'WARN_TEXT_LEFT_OUT')?.message
  }
  const user = (content: string): Turn => ({ role: 'user', content })
  const assistant = (content: string, more: Partial<Turn> = {}): Turn => ({ role: 'assistant', content, ...more })

  it('are told with row and field: reasoning that the template does not know', async () => {
    const message = await told(
      'm.content',
      [user('q'), assistant('four')],
      [user('q'), assistant('four', { reasoning_content: 'Add.' })],
    )
    assert.match(message!, /^1 conversation has text that the chat template leaves out/)
    assert.match(message!, /rows\.jsonl:2 messages\[1\]\.reasoning_content$/)
  })

  it('are told of parts of an answer', async () => {
    const rows = [[user('q'), assistant('It opens </think> here')]]
    assert.match((await told("m.content.split('</think>')[-1]", ...rows))!, /messages\[1\]\.content$/)
  })

  it('are told of what users say', async () => {
    assert.match(
      (await told('m.content[:5]', [user('a long question'), assistant('four')]))!,
      /messages\[0\]\.content$/,
    )
  })

  it('are none behind the last trained turn, where a conversation that is split ends', async () => {
    const dangling = [user('q'), assistant('x|one'), user('Zwei?'), { ...assistant('y|two'), weight: 0 }, user('Vier!')]
    assert.equal(await told("(m.content if loop.last else m.content.split('|')[-1])", dangling), undefined)
    const cut = "(m.content if loop.last else m.content.split('|')[-1])[:5]"
    assert.match((await told(cut, [user('a long question'), ...dangling.slice(1)]))!, /messages\[0\]\.content$/)
  })

  it('are none where only whitespace goes, words are added, or an earlier turn is rewritten', async () => {
    assert.equal(await told('m.content | trim', [user('  q\n'), assistant(' a\n\nb ')]), undefined)
    assert.equal(
      await told("'<think>\\n' ~ m.content | replace(' ', ' so ')", [user('q'), assistant('a b')]),
      undefined,
    )
    const rewriting = "m.content if loop.last else m.content.split('|')[-1]"
    assert.equal(await told(rewriting, [user('q'), assistant('x|a'), user('r'), assistant('y|b')]), undefined)
  })

  itShared('are told of text before a tag that Qwen3 cuts at, not of reasoning that it renders', async () => {
    const qwen = await realTokenizer('qwen3')
    const find = async (turn: Turn) => {
      const train = await write('rows.jsonl', jsonl({ messages: [user('q'), turn] }))
      const options = prepareOptions(train, { controlTokensInText: 'keep' })
      return (await prepare(options, qwen)).warnings.find(({ code }) => code === 'WARN_TEXT_LEFT_OUT')?.message
    }
    assert.equal(await find(assistant('four', { reasoning_content: 'Add.' })), undefined)
    assert.equal(await find(assistant('<think>\nAdd.\n</think>\n\nfour')), undefined)
    assert.match((await find(assistant('It opens <think> reasoning </think>.')))!, /messages\[1\]\.content$/)
  })
})
