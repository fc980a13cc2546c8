import assert from 'node:assert/strict'
import fc from 'fast-check'
import { checkSupervisedShare } from '../../lib/chat/checks.ts'
import { ControlTokens } from '../../lib/chat/control-tokens.ts'
import { type ChatTemplate, chooseTemplate } from '../../lib/chat/template.ts'
import type { Tokenizer } from '../../lib/chat/tokenizer.ts'
import { type WeightOptions, weighTokens, weightedConversation, weightedText } from '../../lib/chat/weights.ts'
import type { Conversation } from '../../lib/data/conversation.ts'
import { RowProblem } from '../../lib/data/rows.ts'
import { failure, temporaryFolder } from '../data/helpers.ts'
import { describeShared } from '../shared.ts'
import { conversation, dialogues, realTokenizer, template, toyTokenizer } from './helpers.ts'

const DEFAULTS: WeightOptions = { trainOn: 'assistant', promptLossWeight: 0, historyRewrite: 'split' }
const ALL: WeightOptions = { ...DEFAULTS, trainOn: 'all' }

async function weigh(
  own: ChatTemplate,
  tokenizer: Tokenizer,
  chat: Conversation,
  options: Partial<WeightOptions> = {},
) {
  const texts = weightedConversation(own, chat, { ...DEFAULTS, ...options })
  const encodings = await tokenizer.encodeBatch(texts.map(({ text }) => text))
  return texts.map((text, i) => ({ ...weighTokens(text, encodings[i]!, tokenizer), text: text.text }))
}

type Weighed = Awaited<ReturnType<typeof weigh>>[number]

/** Runs of tokens with the same weight above 0, decoded. */
async function runs(tokenizer: Tokenizer, { ids, weights }: Weighed): Promise<[number, string][]> {
  const found: [number, string][] = []
  for (let start = 0; start < ids.length; ) {
    let end = start
    while (end < ids.length && weights[end] === weights[start]) end++
    if (weights[start]! > 0) {
      found.push([weights[start]!, await tokenizer.decode(ids.subarray(start, end), { skipSpecial: false })])
    }
    start = end
  }
  return found
}

const CHAT = conversation(
  ['system', 'S'],
  ['user', 'Q 😀'],
  ['assistant', 'one 𝕏'],
  ['user', 'R'],
  ['assistant', 'two'],
)

describe('loss weights', () => {
  const { path } = temporaryFolder()
  let tokenizer: Tokenizer
  let chatml: ChatTemplate
  before(async () => {
    tokenizer = await toyTokenizer(path('toy'), {
      special: ['<s>', '</s>', '<|im_start|>', '<|im_end|>'],
      bos: '<s>',
      eos: '</s>',
      addsBos: true,
    })
    chatml = (await chooseTemplate('chatml', tokenizer)).template
  })

  it('decode to the replies and their stop tokens, for random conversations', async () => {
    await fc.assert(
      fc.asyncProperty(dialogues, async (chat) => {
        const [weighed] = await weigh(chatml, tokenizer, chat)
        const replies = chat.messages
          .filter(({ role }) => role === 'assistant')
          .map(({ content }) => `${content}<|im_end|>`)
        assert.deepEqual(
          await runs(tokenizer, weighed!),
          replies.map((reply) => [1, reply]),
        )
        assert.equal(await tokenizer.decode(weighed!.ids, { skipSpecial: false }), weighed!.text)
        assert.equal(weighed!.straddling, 0)
      }),
    )
  })

  it("cover the last reply only with trainOn 'last'", async () => {
    const [weighed] = await weigh(chatml, tokenizer, CHAT, { trainOn: 'last' })
    assert.deepEqual(await runs(tokenizer, weighed!), [[1, 'two<|im_end|>']])
  })

  it("cover everything but the first token with trainOn 'all'", async () => {
    const [weighed] = await weigh(chatml, tokenizer, CHAT, { trainOn: 'all' })
    assert.equal(weighed!.weights[0], 0)
    assert.ok(weighed!.weights.subarray(1).every((weight) => weight === 1))
  })

  it('follow the weights of turns', async () => {
    const chat = conversation(
      ['user', 'q'],
      ['assistant', 'one', { weight: 0.25 }],
      ['user', 'r'],
      ['assistant', 'two', { weight: 0 }],
      ['user', 's'],
      ['assistant', 'three', { weight: 2 }],
    )
    const [weighed] = await weigh(chatml, tokenizer, chat)
    assert.deepEqual(await runs(tokenizer, weighed!), [
      [0.25, 'one<|im_end|>'],
      [2, 'three<|im_end|>'],
    ])
    const [all] = await weigh(chatml, tokenizer, chat, { trainOn: 'all' })
    const found = await runs(tokenizer, all!)
    assert.deepEqual(
      found.filter(([weight]) => weight !== 1),
      [
        [0.25, 'one<|im_end|>'],
        [2, 'three<|im_end|>'],
      ],
    )
    assert.ok(!found.some(([, text]) => text.includes('two')))
  })

  it('give the rest of the text promptLossWeight', async () => {
    const [weighed] = await weigh(chatml, tokenizer, CHAT, { promptLossWeight: 0.125 })
    const found = await runs(tokenizer, weighed!)
    assert.deepEqual(
      found.filter(([weight]) => weight === 1).map(([, text]) => text),
      ['one 𝕏<|im_end|>', 'two<|im_end|>'],
    )
    assert.equal(weighed!.weights[0], 0)
    assert.ok(weighed!.weights.subarray(1).every((weight) => weight === 1 || weight === 0.125))
    assert.equal(found.map(([, text]) => text).join(''), weighed!.text.slice('<s>'.length))
  })

  it('count a prompt once where the conversation is split', async () => {
    const rewriting = template(
      tokenizer,
      "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content if loop.last else m.content.split('|')[-1] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    )
    const chat = conversation(['user', 'q'], ['assistant', 'x|one'], ['user', 'r'], ['assistant', 'y|two'])
    const pieces = await weigh(rewriting, tokenizer, chat, { promptLossWeight: 0.5 })
    const found = await Promise.all(pieces.map((piece) => runs(tokenizer, piece)))
    assert.deepEqual(found, [
      [
        [0.5, 'user\nq<|im_end|>\n<|im_start|>assistant\n'],
        [1, 'x|one<|im_end|>'],
        [0.5, '\n'],
      ],
      [
        [0.5, '\n<|im_start|>user\nr<|im_end|>\n<|im_start|>assistant\n'],
        [1, 'y|two<|im_end|>'],
        [0.5, '\n'],
      ],
    ])
  })

  describe('where the template rewrites earlier turns', () => {
    /** Words before the bar stay in the last turn only. */
    const REWRITING =
      "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content if loop.last else m.content.split('|')[-1] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    const chat = conversation(
      ['user', 'q'],
      ['assistant', 'x|one', { weight: 0.5 }],
      ['user', 'r'],
      ['assistant', 'y|two'],
      ['user', 'rest'],
    )
    const runsOf = async (options: Partial<WeightOptions>) => {
      const pieces = await weigh(template(tokenizer, REWRITING), tokenizer, chat, options)
      return Promise.all(pieces.map((piece) => runs(tokenizer, piece)))
    }

    it('train every message once, in the context of inference, also what follows the last turn', async () => {
      assert.deepEqual(await runsOf({ trainOn: 'all' }), [
        [
          [1, 'user\nq<|im_end|>\n<|im_start|>assistant\n'],
          [0.5, 'x|one<|im_end|>'],
          [1, '\n'],
        ],
        [[1, '\n<|im_start|>user\nr<|im_end|>\n<|im_start|>assistant\ny|two<|im_end|>\n']],
        [[1, '\n<|im_start|>user\nrest<|im_end|>\n']],
      ])
    })

    it('give a repeated turn no weight, whatever its own is', async () => {
      const found = (await runsOf({ promptLossWeight: 0.125 })).flat()
      const weightOf = (words: string) => found.filter(([, text]) => text.includes(words)).map(([weight]) => weight)
      assert.deepEqual(['one', 'two', 'q<', 'r<', 'rest'].map(weightOf), [[0.5], [1], [0.125], [0.125], [0.125]])
    })

    it("weigh the turns that trainOn 'last' leaves out as the rest of the text, times their own weight", async () => {
      const found = (await runsOf({ trainOn: 'last', promptLossWeight: 0.125 })).flat()
      assert.deepEqual(
        found.filter(([, text]) => /one|two/.test(text)),
        [
          [0.0625, 'x|one<|im_end|>'],
          [1, 'y|two<|im_end|>'],
        ],
      )
    })
  })

  it('leave conversations out whose turns all have weight 0', async () => {
    assert.deepEqual(await weigh(chatml, tokenizer, conversation(['user', 'q'], ['assistant', 'a', { weight: 0 }])), [])
  })

  it("refuse weights of users with trainOn 'all'", async () => {
    const chat = conversation(['user', 'q', { weight: 0 }], ['assistant', 'a'])
    await assert.rejects(
      weigh(chatml, tokenizer, chat, { trainOn: 'all' }),
      (error) => error instanceof RowProblem && error.field === 'messages[0].weight',
    )
    assert.equal((await weigh(chatml, tokenizer, chat)).length, 1)
  })

  it('go to every token that overlaps a reply, and those are counted', async () => {
    const merging = await toyTokenizer(path('merging'), {
      special: ['<|im_start|>', '<|im_end|>'],
      merges: [['Ċ', 'Ċ']],
    })
    const own = (await chooseTemplate('chatml', merging)).template
    const [weighed] = await weigh(own, merging, conversation(['user', 'q'], ['assistant', '\nhi']))
    assert.deepEqual(await runs(merging, weighed!), [[1, '\n\nhi<|im_end|>']])
    assert.equal(weighed!.straddling, 1)
  })

  it('refuse a text that starts with bos twice', async () => {
    const twice = template(tokenizer, `{{ bos_token }}${chatml.source}`)
    await assert.rejects(
      weigh(twice, tokenizer, CHAT),
      (error) => error instanceof RowProblem && /<s> twice/.test(error.message),
    )
  })

  it('cover plain text whole, bos and eos around it', async () => {
    const text = weightedText({ text: 'Once 😀.', source: CHAT.source }, tokenizer, ALL)
    const { ids, weights } = weighTokens(text, await tokenizer.encode(text.text), tokenizer)
    assert.equal(await tokenizer.decode(ids, { skipSpecial: false }), '<s>Once 😀.</s>')
    assert.deepEqual([...weights], [0, ...Array(ids.length - 1).fill(1)])
    const bare = await toyTokenizer(path('bare'))
    const alone = weightedText({ text: 'ab', source: CHAT.source }, bare, ALL)
    const weighed = weighTokens(alone, await bare.encode('ab'), bare)
    assert.deepEqual([...weighed.weights], [0, 1])
  })

  it('cover the completion of a text, eos included, and the prompt as promptLossWeight says', async () => {
    const row = { text: 'ab😀cd', promptLength: 4, source: CHAT.source }
    const weighed = async (options: WeightOptions, weight?: number) => {
      const text = weightedText(weight === undefined ? row : { ...row, weight }, tokenizer, options)
      const { ids, weights } = weighTokens(text, await tokenizer.encode(text.text), tokenizer)
      return { text: await tokenizer.decode(ids, { skipSpecial: false }), weights: [...weights] }
    }
    const prompt = (await tokenizer.encode('ab😀')).ids.length
    const { text, weights } = await weighed(DEFAULTS)
    assert.equal(text, '<s>ab😀cd</s>')
    assert.deepEqual(weights, [0, ...Array(prompt).fill(0), 1, 1, 1])
    const lower = await weighed({ ...DEFAULTS, promptLossWeight: 0.5 })
    assert.deepEqual(lower.weights, [0, ...Array(prompt).fill(0.5), 1, 1, 1])
    assert.deepEqual((await weighed(ALL)).weights, [0, ...Array(prompt + 3).fill(1)])
    assert.deepEqual((await weighed(DEFAULTS, 0.25)).weights, [0, ...Array(prompt).fill(0), 0.25, 0.25, 0.25])
  })

  it('count a token that prompt and completion share, and give it loss', async () => {
    const merged = await toyTokenizer(path('merged'), { merges: [['a', 'b']] })
    const text = weightedText({ text: 'xaby', promptLength: 2, source: CHAT.source }, merged, DEFAULTS)
    const { weights, straddling } = weighTokens(text, await merged.encode('xaby'), merged)
    assert.deepEqual([[...weights], straddling], [[0, 1, 1], 1])
  })

  it('are multiplied by the weight of the row', async () => {
    const [plain] = await weigh(chatml, tokenizer, CHAT)
    const [half] = await weigh(chatml, tokenizer, { ...CHAT, weight: 0.5 })
    assert.deepEqual(
      [...half!.weights],
      [...plain!.weights].map((weight) => weight * 0.5),
    )
  })
})

describe('control tokens in text', () => {
  const { path } = temporaryFolder()

  it('are found in every string of a row, the longest at a place', async () => {
    const tokenizer = await toyTokenizer(path('toy'), {
      special: ['<s>', '<|end|>', '<|end|>x', '$1'],
      added: ['<think>'],
    })
    const tokens = new ControlTokens(tokenizer)
    assert.equal(tokens.find('a <think> b'), undefined)
    assert.equal(tokens.find('a <|end|>x'), '<|end|>x')
    assert.equal(tokens.find('costs $1'), '$1')
    const call = { function: { name: 'f', arguments: { deep: ['a', { b: '<s>' }] } } }
    const chat = conversation(['user', 'q'], ['assistant', 'a', { tool_calls: [call] }])
    assert.throws(
      () => tokens.checkConversation(chat.messages, undefined),
      (error) =>
        error instanceof RowProblem &&
        error.field === 'messages[1].tool_calls[0].function.arguments.deep[1].b' &&
        /<s>.*"keep"/.test(error.message),
    )
    tokens.checkConversation(conversation(['user', '<think>']).messages, [{ name: 'f' }])
    assert.throws(() => tokens.checkConversation([], [{ '<s>': 1 }]), RowProblem)
    assert.equal(new ControlTokens(await toyTokenizer(path('none'))).find('<s>'), undefined)
  })
})

describe('the share of tokens that carry loss', () => {
  const settings = { trainOn: 'assistant', promptLossWeight: 0 } as const

  it('must not be nothing, nor nearly everything unless asked for', () => {
    assert.throws(
      () => checkSupervisedShare({ tokens: 10, supervisedTokens: 0 }, settings),
      failure('ERR_NOTHING_SUPERVISED'),
    )
    assert.throws(
      () => checkSupervisedShare({ tokens: 1000, supervisedTokens: 990 }, settings),
      failure('ERR_EVERYTHING_SUPERVISED', '99.0 %'),
    )
    checkSupervisedShare({ tokens: 1000, supervisedTokens: 989 }, settings)
    checkSupervisedShare({ tokens: 1000, supervisedTokens: 999 }, { trainOn: 'all', promptLossWeight: 0 })
    checkSupervisedShare({ tokens: 1000, supervisedTokens: 999 }, { trainOn: 'last', promptLossWeight: 0.1 })
  })
})

describeShared('loss weights with tokenizers of real models', () => {
  for (const name of ['deepseek_v3', 'llama3', 'minimind', 'qwen3']) {
    it(`${name}: supervised tokens decode to the spans`, async () => {
      const tokenizer = await realTokenizer(name)
      const { template: own } = await chooseTemplate('model', tokenizer)
      await fc.assert(
        fc.asyncProperty(dialogues, async (chat) => {
          const texts = weightedConversation(own, chat, DEFAULTS)
          for (const text of texts) {
            const encoding = await tokenizer.encode(text.text)
            const weighed = { ...weighTokens(text, encoding, tokenizer), text: text.text }
            const decoded = (await runs(tokenizer, weighed)).map(([, run]) => run.normalize('NFC'))
            // Some of them normalise what they read (NFC).
            const spans = text.spans.map(({ start, end }) => text.text.slice(start, end).normalize('NFC'))
            if (weighed.straddling === 0) assert.deepEqual(decoded, spans)
            else
              assert.ok(
                decoded.every((run, i) => run.endsWith(spans[i]!)),
                JSON.stringify([decoded, spans]),
              )
          }
        }),
        { numRuns: 50 },
      )
    })
  }
})
