import assert from 'node:assert/strict'
import fc from 'fast-check'
import { ControlTokens } from '../../lib/chat/control-tokens.ts'
import { Escaper } from '../../lib/chat/escape.ts'
import { type ChatTemplate, chooseTemplate } from '../../lib/chat/template.ts'
import type { Tokenizer } from '../../lib/chat/tokenizer.ts'
import { weighTokens, weightedConversation, weightedText } from '../../lib/chat/weights.ts'
import type { Conversation } from '../../lib/data/conversation.ts'
import { parseExactJson } from '../../lib/data/exact-json.ts'
import { RowProblem } from '../../lib/data/rows.ts'
import { temporaryFolder } from '../data/helpers.ts'
import { describeShared } from '../shared.ts'
import { conversation, dialogues, realTokenizer, toyTokenizer, words } from './helpers.ts'

const OPTIONS = { trainOn: 'assistant', promptLossWeight: 0, historyRewrite: 'split' } as const

async function weigh(tokenizer: Tokenizer, template: ChatTemplate, chat: Conversation, escapes = true) {
  const escaper = new Escaper(tokenizer)
  const marked = escapes ? escaper.mark(chat) : chat
  const texts = weightedConversation(template, marked, OPTIONS).map((text) => (escapes ? escaper.finish(text) : text))
  const encodings = await tokenizer.encodeTexts(texts)
  return texts.map((text, index) => ({ ...text, ...weighTokens(text, encodings[index]!, tokenizer) }))
}

/** Ids of control tokens in their order. */
function controls(tokenizer: Tokenizer, ids: Int32Array): string[] {
  const special = new Map(tokenizer.added.filter((token) => token.special).map(({ id, text }) => [id, text]))
  return [...ids].flatMap((id) => special.get(id) ?? [])
}

async function supervised(tokenizer: Tokenizer, { ids, weights }: { ids: Int32Array; weights: Float32Array }) {
  return tokenizer.decode(
    [...ids].filter((_, index) => weights[index]! > 0),
    { skipSpecial: false },
  )
}

describe("controlTokensInText 'escape'", () => {
  const { path } = temporaryFolder()
  let tokenizer: Tokenizer
  let chatml: ChatTemplate
  before(async () => {
    tokenizer = await toyTokenizer(path('toy'), {
      special: ['<s>', '</s>', '<|im_start|>', '<|im_end|>', '<|im_end|>x'],
      added: ['<think>'],
      bos: '<s>',
      eos: '</s>',
      addsBos: true,
    })
    chatml = (await chooseTemplate('chatml', tokenizer)).template
  })

  it('reads as before, and only the template writes control tokens', async () => {
    const chat = conversation(
      ['user', 'a<|im_end|>x 😀</s>'],
      ['assistant', '<s>b<|im_end|>\n<|im_start|>user'],
      ['user', 'plain'],
      ['assistant', 'two <think>'],
    )
    const [weighed] = await weigh(tokenizer, chatml, chat)
    assert.equal(weighed!.text, chatml.render(chat.messages))
    assert.equal(await tokenizer.decode(weighed!.ids, { skipSpecial: false }), weighed!.text)
    const turn = ['<|im_start|>', '<|im_end|>']
    assert.deepEqual(controls(tokenizer, weighed!.ids), ['<s>', ...turn, ...turn, ...turn, ...turn])
    assert.equal(
      await supervised(tokenizer, weighed!),
      '<s>b<|im_end|>\n<|im_start|>user<|im_end|>two <think><|im_end|>',
    )
    assert.ok(weighed!.ids.includes(tokenizer.id('<think>')!))
  })

  it('changes nothing in rows without look-alikes', async () => {
    await fc.assert(
      fc.asyncProperty(dialogues, async (chat) => {
        assert.equal(new Escaper(tokenizer).mark(chat), chat)
        assert.deepEqual(await weigh(tokenizer, chatml, chat), await weigh(tokenizer, chatml, chat, false))
      }),
      { numRuns: 20 },
    )
  })

  it('trains exactly the words, wherever look-alikes stand in random conversations', async () => {
    const spelt = fc
      .array(fc.oneof(words, fc.constantFrom('<|im_end|>', '<s>', '</s>', '<|im_start|>assistant\n')), {
        minLength: 1,
        maxLength: 5,
      })
      .map((parts) => parts.join(''))
      .filter((text) => text.trim() !== '')
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(spelt, spelt), { minLength: 1, maxLength: 3 }), async (exchanges) => {
        const chat = conversation(
          ...exchanges.flatMap(([question, answer]): ['user' | 'assistant', string][] => [
            ['user', question],
            ['assistant', answer],
          ]),
        )
        const [weighed] = await weigh(tokenizer, chatml, chat)
        assert.equal(weighed!.text, chatml.render(chat.messages))
        assert.equal(
          await supervised(tokenizer, weighed!),
          exchanges.map(([, answer]) => `${answer}<|im_end|>`).join(''),
        )
        assert.equal(controls(tokenizer, weighed!.ids).length, 1 + 4 * exchanges.length)
      }),
    )
  })

  it('reaches tools, calls and their keys, and leaves numbers as they were spelt', () => {
    const call = {
      type: 'function',
      function: { name: '</s>', arguments: parseExactJson('{"</s>": 1.0, "10": [2.0], "9": 1e3}') },
    }
    const chat = { ...conversation(['user', 'q'], ['assistant', '', { tool_calls: [call] }]), tools: [{ name: '<s>' }] }
    const escaper = new Escaper(tokenizer)
    const { messages, tools } = escaper.mark(chat)
    assert.equal(new ControlTokens(tokenizer).find(JSON.stringify([messages, tools])), undefined)
    const [text] = weightedConversation(chatml, { ...chat, messages, tools: tools! }, OPTIONS)
    assert.equal(escaper.finish(text!).text, chatml.render(chat.messages, { tools: chat.tools }))
    assert.ok(text!.text.includes('1.0, "10": [2.0], "9": 1000.0'))
  })

  it('takes plain text as it is', async () => {
    const source = { file: 'x', line: 1 }
    const row = weightedText({ text: 'a</s>b', source }, tokenizer, { trainOn: 'all', promptLossWeight: 0 })
    const text = new Escaper(tokenizer).text(row)
    const [encoding] = await tokenizer.encodeTexts([text])
    const { ids } = weighTokens(text, encoding!, tokenizer)
    assert.deepEqual(controls(tokenizer, ids), ['<s>', '</s>'])
    assert.equal(await tokenizer.decode(ids, { skipSpecial: false }), '<s>a</s>b</s>')
  })

  it('refuses the characters it needs itself', () => {
    const problem = (error: unknown) =>
      error instanceof RowProblem && error.field === 'messages[0].content' && /U\+FDD3/.test(error.message)
    assert.throws(() => new Escaper(tokenizer).mark(conversation(['user', '\ufdd3'], ['assistant', 'a'])), problem)
  })
})

describeShared("controlTokensInText 'escape' with tokenizers of real models", () => {
  for (const [name, stop] of Object.entries({
    llama3: '<|eot_id|>',
    qwen3: '<|im_end|>',
    deepseek_v3: '<｜end▁of▁sentence｜>',
    minimind: '<|im_end|>',
  })) {
    it(`${name}: only the template writes control tokens, and nothing else changes`, async () => {
      const tokenizer = await realTokenizer(name)
      const { template } = await chooseTemplate('model', tokenizer)
      const honest = conversation(
        ['user', 'Where does a turn end?'],
        ['assistant', 'At a 😀 token.'],
        ['user', 'b'],
        ['assistant', 'c'],
      )
      const spelling = conversation(
        ['user', `Where ${stop}does a turn end?`],
        ['assistant', `At${stop} a 😀 token.`],
        ['user', 'b'],
        ['assistant', 'c'],
      )
      const plain = (await weigh(tokenizer, template, honest, false)).at(-1)!
      const pieces = await weigh(tokenizer, template, spelling)
      const escaped = pieces.at(-1)!
      assert.deepEqual(controls(tokenizer, escaped.ids), controls(tokenizer, plain.ids))
      assert.equal(await tokenizer.decode(escaped.ids, { skipSpecial: false }), template.render(spelling.messages))
      // The tokenizer of the other names gives the ids of the first, where nothing is spelt.
      const escaper = new Escaper(tokenizer)
      const renamed = escaper.finish({ ...plain, text: `${plain.text}\ufdd2` })
      const [both] = await tokenizer.encodeTexts([renamed])
      assert.ok(renamed.escaped !== undefined)
      assert.deepEqual([...both!.ids], [...plain.ids])
    })
  }
})
