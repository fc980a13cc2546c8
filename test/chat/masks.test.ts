/**
 * Generation tags mark what Transformers' return_assistant_tokens_mask marks: TRL's own training templates.
 */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { ChatTemplate } from '../../lib/chat/template.ts'
import type { Tokenizer } from '../../lib/chat/tokenizer.ts'
import { weighTokens, weightedConversation } from '../../lib/chat/weights.ts'
import type { Conversation } from '../../lib/data/conversation.ts'
import { RowProblem } from '../../lib/data/rows.ts'
import { TunesmithError } from '../../lib/errors.ts'
import { temporaryFolder } from '../data/helpers.ts'
import { describeShared } from '../shared.ts'
import { golden, NOW, type Renderings, readMessages, readTools } from './golden.ts'
import { realTokenizer, toyTokenizer } from './helpers.ts'

interface Masks {
  name: string
  /** A tokenizer of ../shared that has the template's tokens. */
  tokenizer: string | null
  cases: {
    spans: [start: number, end: number][] | { error: string }
    tokens?: { ids: string; mask: string } | { error: string }
  }[]
}

const OPTIONS = { trainOn: 'assistant', promptLossWeight: 0, historyRewrite: 'error' } as const
/** What is refused here though Transformers masks it: turns without an end, rewritten history, a reply that opens. */
const REFUSALS = /^ERR_STOP_TOKEN_UNTRAINED|^ERR_HISTORY_REWRITE|No user query found/
const SPECIAL = [
  ...['<s>', '</s>', '<pad>', '<unk>', '<|im_start|>', '<|im_end|>', '<|endoftext|>', '<｜end▁of▁sentence｜>'],
  ...[
    '<|user|>',
    '<|assistant|>',
    '<|observation|>',
    '<|system|>',
    '<|end|>',
    '<|return|>',
    '<|call|>',
    '<end_of_utterance>',
  ],
]

describe("masks of TRL's training templates", () => {
  const { path } = temporaryFolder()
  const { conversations, templates } = golden<Renderings>('renderings.json.gz')
  const masks = golden<Masks[]>('masks.json.gz')
  const texts = conversations.map(({ messages, tools }): Conversation => {
    const list = readTools(tools)
    return { messages: readMessages(messages), ...(list && { tools: list }), source: { file: 'golden', line: 1 } }
  })
  let toy: Tokenizer
  before(async () => {
    // What the generation_config.json of their models names, for GLM, gpt-oss and Phi.
    const stops = ['<|observation|>', '<|user|>', '<|call|>', '<|end|>'].map((text) => 256 + SPECIAL.indexOf(text))
    toy = await toyTokenizer(path('toy'), {
      special: SPECIAL,
      bos: '<s>',
      eos: '</s>',
      config: { pad_token: '<pad>', unk_token: '<unk>' },
      files: { 'generation_config.json': { eos_token_id: stops } },
    })
  })

  function template(name: string, tokenizer: Tokenizer): ChatTemplate {
    const { source } = templates.find((each) => each.name === `trl/${name}`)!
    return new ChatTemplate(tokenizer, { name, sources: new Map([['default', source!]]), now: NOW })
  }

  /** What is trained; or why nothing is: a row that is refused, or a template that would not teach to stop. */
  function weighted(own: ChatTemplate, chat: Conversation) {
    try {
      const found = weightedConversation(own, chat, OPTIONS)
      assert.ok(found.length <= 1)
      return found
    } catch (error) {
      if (error instanceof RowProblem) return `${error.field}: ${error.message}`
      if (error instanceof TunesmithError) return `${error.code}: ${error.message}`
      throw error
    }
  }

  // The template of Idefics writes typed parts only; what is text in the golden conversations it leaves out.
  for (const { name, cases } of masks.filter((each) => !each.name.startsWith('idefics3'))) {
    it(`${name}: characters`, () => {
      const own = template(name, toy)
      let compared = 0
      for (const [index, { spans }] of cases.entries()) {
        const found = weighted(own, texts[index]!)
        if (!Array.isArray(spans)) {
          assert.ok(typeof found === 'string' || found.length === 0, conversations[index]!.name)
          continue
        }
        if (typeof found === 'string') {
          assert.match(found, REFUSALS, conversations[index]!.name)
          continue
        }
        const text = found[0]?.text ?? ''
        const toCodePoints = (at: number) => Array.from(text.slice(0, at)).length
        const actual = (found[0]?.spans ?? []).map(({ start, end }) => [toCodePoints(start), toCodePoints(end)])
        assert.deepEqual(
          actual,
          spans.filter(([start, end]) => end > start),
          conversations[index]!.name,
        )
        compared += actual.length
      }
      assert.ok(compared > 10, `${compared} spans`)
    })
  }

  describeShared('as tokens', () => {
    for (const { name, tokenizer: folder, cases } of masks.filter(({ tokenizer }) => tokenizer !== null)) {
      it(`${name} with the tokenizer of ${folder}`, async () => {
        const tokenizer = await realTokenizer(folder!)
        const own = template(name, tokenizer)
        let compared = 0
        for (const [index, { tokens }] of cases.entries()) {
          const found = weighted(own, texts[index]!)
          if (typeof found === 'string' || found.length === 0 || !tokens || 'error' in tokens) continue
          const [encoding] = await tokenizer.encodeBatch([found[0]!.text])
          const { ids, weights } = weighTokens(found[0]!, encoding!, tokenizer)
          assert.equal(
            createHash('sha256').update(new Uint8Array(ids.buffer)).digest('hex'),
            tokens.ids,
            conversations[index]!.name,
          )
          const mask = Array.from(weights, (weight) => (weight > 0 ? '1' : '0')).join('')
          assert.equal(mask, tokens.mask, conversations[index]!.name)
          compared++
        }
        assert.ok(compared > 10, `${compared} compared`)
      })
    }
  })
})
