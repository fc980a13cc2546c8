import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import fc from 'fast-check'
import { Tokenizer } from '../../lib/chat/tokenizer.ts'
import { failure, temporaryFolder } from '../data/helpers.ts'
import { describeShared, shared } from '../shared.ts'
import { realTokenizer, toyTokenizer, words } from './helpers.ts'

const NAMES = ['deepseek_v3', 'gpt2', 'llama2', 'llama3', 'minimind', 'qwen3']

describe('tokenizer', () => {
  const { path } = temporaryFolder()
  let tokenizer: Tokenizer
  before(async () => {
    tokenizer = await toyTokenizer(path('toy'), {
      special: ['<s>', '</s>', '<|call|>'],
      added: ['<think>'],
      bos: '<s>',
      eos: { __type: 'AddedToken', content: '</s>', lstrip: false },
      addsBos: true,
      files: { 'generation_config.json': { eos_token_id: [257, 258, 99999] } },
    })
  })

  it('reads special tokens as text and as added tokens, and the stop tokens of generation', () => {
    assert.deepEqual(tokenizer.bos, { text: '<s>', id: 256 })
    assert.deepEqual(tokenizer.eos, { text: '</s>', id: 257 })
    assert.equal(tokenizer.pad, undefined)
    assert.deepEqual(tokenizer.stops, [
      { text: '</s>', id: 257 },
      { text: '<|call|>', id: 258 },
    ])
    assert.equal(tokenizer.addsBos, true)
    assert.equal(tokenizer.vocabSize, 260)
    assert.equal(tokenizer.id('<think>'), 259)
    assert.equal(tokenizer.id('nonsense'), undefined)
    assert.equal(tokenizer.token(259), '<think>')
    assert.equal(tokenizer.token(260), undefined)
  })

  it('adds nothing to text, and ignores the truncation of tokenizer.json', async () => {
    const { ids } = await tokenizer.encode('abcdefgh')
    assert.deepEqual(
      [...ids],
      [...'abcdefgh'].map((letter) => tokenizer.id(letter)),
    )
    assert.equal((await tokenizer.encode('')).length, 0)
  })

  it('decodes with and without control tokens', async () => {
    const { ids } = await tokenizer.encode('<s>é😀<think></s>')
    assert.equal(await tokenizer.decode(ids), 'é😀<think>')
    assert.equal(await tokenizer.decode(ids, { skipSpecial: false }), '<s>é😀<think></s>')
  })

  it('finds exactly the tokens of a range, whatever characters stand before it', async () => {
    const ranges = fc.tuple(words, words, words).filter((parts) => parts.every((part) => !/[<]/.test(part)))
    await fc.assert(
      fc.asyncProperty(ranges, async ([before, inside, after]) => {
        const encoding = await tokenizer.encode(`${before}<think>${inside}<think>${after}`)
        const start = before.length + '<think>'.length
        const range = encoding.range(start, start + inside.length)!
        assert.equal(await tokenizer.decode(encoding.ids.subarray(range.first, range.end)), inside)
        assert.deepEqual([range.startsBefore, range.endsAfter], [false, false])
        assert.deepEqual(encoding.span(range.first)[0], start)
        assert.deepEqual(encoding.span(range.end - 1)[1], start + inside.length)
      }),
    )
  })

  it('takes every token of a character that is cut into bytes', async () => {
    const encoding = await tokenizer.encode('😀😀a')
    assert.deepEqual(encoding.range(2, 4), { first: 4, end: 8, startsBefore: false, endsAfter: false })
    assert.deepEqual(encoding.range(0, 2), { first: 0, end: 4, startsBefore: false, endsAfter: false })
    assert.equal(encoding.range(3, 3), undefined)
  })

  it('tells tokens that reach over an edge', async () => {
    const merging = await toyTokenizer(path('merging'), { merges: [['Ċ', 'Ċ']] })
    const encoding = await merging.encode('a\n\nb')
    assert.deepEqual(encoding.range(2, 4), { first: 1, end: 3, startsBefore: true, endsAfter: false })
    assert.deepEqual(encoding.range(0, 2), { first: 0, end: 2, startsBefore: false, endsAfter: true })
  })

  it('does not hold up the event loop while a batch is encoded', async () => {
    let turns = 0
    const timer = setInterval(() => turns++, 1)
    await tokenizer.encodeBatch(Array.from({ length: 16 }, () => 'some words of text '.repeat(500)))
    clearInterval(timer)
    assert.ok(turns > 1, `${turns} turns of the event loop`)
  })

  it('reads chat templates as text, as a list, and from a file, which wins', async () => {
    const templates = async (name: string, config: Record<string, unknown>, files: Record<string, unknown> = {}) =>
      Object.fromEntries((await toyTokenizer(path(name), { config, files })).chatTemplates)
    assert.deepEqual(await templates('t0', {}), {})
    assert.deepEqual(await templates('t1', { chat_template: 'x' }), { default: 'x' })
    const named = [
      { name: 'default', template: 'a' },
      { name: 'tool_use', template: 'b' },
    ]
    assert.deepEqual(await templates('t2', { chat_template: named }), { default: 'a', tool_use: 'b' })
    assert.deepEqual(await templates('t3', { chat_template: 'x' }, { 'chat_template.jinja': 'y' }), { default: 'y' })
  })

  it('takes special tokens from special_tokens_map.json where the configuration has none', async () => {
    const loaded = await toyTokenizer(path('map'), {
      special: ['</s>'],
      files: { 'special_tokens_map.json': { eos_token: '</s>' } },
    })
    assert.deepEqual(loaded.eos, { text: '</s>', id: 256 })
  })

  it('says what is wrong with its files', async () => {
    await assert.rejects(
      Tokenizer.load(path('nowhere')),
      failure('ERR_TOKENIZER_NOT_FOUND', 'nowhere', 'tokenizer.json'),
    )
    await toyTokenizer(path('bad'))
    await writeFile(path('bad/tokenizer.json'), '{"model": ')
    await assert.rejects(Tokenizer.load(path('bad')), failure('ERR_INVALID_TOKENIZER', 'tokenizer.json'))
    await writeFile(path('bad/tokenizer.json'), '{"model": {"type": "Nothing"}}')
    await assert.rejects(Tokenizer.load(path('bad')), failure('ERR_INVALID_TOKENIZER', 'it is not a tokenizer'))
    await writeFile(path('bad/tokenizer.json'), '[]')
    await assert.rejects(Tokenizer.load(path('bad')), failure('ERR_INVALID_TOKENIZER', 'not a JSON object'))
    await assert.rejects(
      toyTokenizer(path('bad2'), { eos: '</s>' }),
      failure('ERR_INVALID_TOKENIZER', 'eos_token "</s>" is not in'),
    )
    await assert.rejects(
      toyTokenizer(path('bad3'), { eos: 3 }),
      failure('ERR_INVALID_TOKENIZER', 'eos_token is neither'),
    )
    await assert.rejects(
      toyTokenizer(path('bad4'), { config: { chat_template: 3 } }),
      failure('ERR_INVALID_TOKENIZER', 'chat_template'),
    )
  })
})

describeShared('tokenizers of real models', () => {
  for (const name of NAMES) {
    it(`${name}: ids and decoded text are those of Python`, async () => {
      const tokenizer = await realTokenizer(name)
      const golden = JSON.parse(readFileSync(shared(`tokenizers/${name}/golden.json`), 'utf8'))
      const encodings = await tokenizer.encodeBatch(golden.ids.map(({ text }: { text: string }) => text))
      for (const [index, { ids, ids_no_special: plain, decoded, text }] of golden.ids.entries()) {
        assert.deepEqual([...encodings[index]!.ids], plain, text)
        assert.equal(tokenizer.addsBos, ids.length > plain.length && ids[0] === tokenizer.bos?.id)
        if (decoded !== undefined) assert.equal(await tokenizer.decode(plain, { skipSpecial: false }), decoded)
      }
    })
  }
})
