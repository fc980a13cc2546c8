import assert from 'node:assert/strict'
import { prepare } from '../../lib/batch/prepare.ts'
import type { PrepareOptions } from '../../lib/batch/prepared.ts'
import type { Tokenizer } from '../../lib/chat/tokenizer.ts'
import { toyTokenizer } from '../chat/helpers.ts'
import { exchange, failure, jsonl, temporaryFolder } from '../data/helpers.ts'
import { prepareOptions } from './helpers.ts'

const options = (path: string, changes: Partial<PrepareOptions> = {}) =>
  prepareOptions(path, { chatTemplate: 'chatml', ...changes })

describe('preparing rows of each layout', () => {
  const { path, write } = temporaryFolder()
  let tokenizer: Tokenizer
  before(async () => {
    tokenizer = await toyTokenizer(path('toy'), {
      special: ['<s>', '</s>', '<|im_start|>', '<|im_end|>'],
      bos: '<s>',
      eos: '</s>',
      addsBos: true,
    })
  })
  /** The text of the first example and of its tokens with loss. */
  const texts = async (file: string, changes: Partial<PrepareOptions> = {}) => {
    const { train } = await prepare(options(file, changes), tokenizer)
    const { ids, weights } = train.examples[0]!
    const decode = (of: Int32Array) => tokenizer.decode(of, { skipSpecial: false })
    return { all: await decode(ids), trained: await decode(ids.filter((_, i) => weights[i]! > 0)), weights }
  }

  it('gives ShareGPT, Alpaca and messages the same examples', async () => {
    const same = await Promise.all(
      [
        exchange('Hi', 'Hello'),
        {
          conversations: [
            { from: 'human', value: 'Hi' },
            { from: 'gpt', value: 'Hello' },
          ],
        },
        { instruction: 'Hi', input: '', output: 'Hello' },
        { prompt: exchange('Hi', '-').messages.slice(0, 1), completion: exchange('-', 'Hello').messages.slice(1) },
      ].map(async (row, index) => texts(await write(`same-${index}.jsonl`, jsonl(row)))),
    )
    assert.equal(same[0]!.all, '<s><|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n')
    assert.equal(same[0]!.trained, 'Hello<|im_end|>')
    for (const other of same.slice(1)) assert.deepEqual(other, same[0])
  })

  it('trains a completion of text and eos after it, without a template', async () => {
    const file = await write('prompt.jsonl', jsonl({ prompt: 'Q: 😀 A:', completion: ' yes', weight: 0.5 }))
    const { all, trained, weights } = await texts(file)
    assert.deepEqual([all, trained], ['<s>Q: 😀 A: yes</s>', ' yes</s>'])
    assert.deepEqual(new Set(weights), new Set([0, 0.5]))
    assert.equal((await prepare(options(file), tokenizer)).template, undefined)
    const spelled = await write('spelled.jsonl', jsonl({ prompt: 'a', completion: 'b </s>' }))
    await assert.rejects(
      prepare(options(spelled), tokenizer),
      failure('ERR_BAD_ROW', 'completion: spells the control token'),
    )
  })

  it('leaves the assistant turns of a prompt without loss', async () => {
    const row = {
      prompt: [...exchange('a', 'b').messages, { role: 'user', content: 'c' }],
      completion: exchange('', 'd').messages.slice(1),
    }
    assert.equal((await texts(await write('context.jsonl', jsonl(row)))).trained, 'd<|im_end|>')
  })

  it('takes tokens as they are, checked against the vocabulary', async () => {
    const ids = [...(await tokenizer.encode('ab')).ids]
    const file = await write('tokens.jsonl', jsonl({ input_ids: ids, labels: [-100, ids[1]] }))
    const { train, template } = await prepare(options(file), tokenizer)
    assert.deepEqual([...train.examples[0]!.ids], ids)
    assert.deepEqual([[...train.examples[0]!.weights], template], [[0, 1], undefined])
    assert.deepEqual(train.examples[0]!.source, { file, line: 1 })
    const foreign = await write('foreign.jsonl', jsonl({ input_ids: [0, 1_000_000], labels: [0, 1_000_000] }))
    await assert.rejects(
      prepare(options(foreign), tokenizer),
      failure('ERR_BAD_ROW', `${foreign}:1: input_ids[1]: is 1000000, but the ids of the tokenizer end at`),
    )
    const bare = await write('bare.jsonl', jsonl({ input_ids: ids }))
    await assert.rejects(prepare(options(bare), tokenizer), failure('ERR_TRAIN_ON', `${bare}:1`, '"labels"'))
    const all = await prepare(options(bare, { trainOn: 'all' }), tokenizer)
    assert.deepEqual([...all.train.examples[0]!.weights], [0, 1])
  })

  it('counts tokenised rows that are too long', async () => {
    const short = { input_ids: [1, 2], labels: [1, 2] }
    const long = Array.from({ length: 101 }, () => 1)
    const file = await write(
      'long.jsonl',
      jsonl(...Array.from({ length: 30 }, () => short), { input_ids: long, labels: long }),
    )
    const { counts } = await prepare(options(file, { trainOn: 'all' }), tokenizer)
    assert.deepEqual(counts.dropped, [
      { reason: 'longer than maxLength (100 tokens)', count: 1, examples: [`${file}:31`] },
    ])
  })

  it('cuts tokenised rows and completions where a trained run ends, and counts an end that is lost', async () => {
    const row = {
      input_ids: Array(120).fill(1),
      labels: [...Array(20).fill(-100), ...Array(30).fill(1), -100, ...Array(69).fill(1)],
    }
    const file = await write('cut.jsonl', jsonl(row))
    const turns = await prepare(options(file, { onTooLong: 'truncate-turns' }), tokenizer)
    assert.deepEqual([turns.train.examples[0]!.ids.length, turns.counts.unstopped], [50, 0])
    const right = await prepare(options(file, { onTooLong: 'truncate-right' }), tokenizer)
    assert.equal(right.train.examples[0]!.ids.length, 100)
    assert.equal(right.counts.unstopped, 1)
    const completion = await write('completion.jsonl', jsonl({ prompt: 'a', completion: 'b'.repeat(120) }))
    await assert.rejects(
      prepare(options(completion, { onTooLong: 'truncate-turns' }), tokenizer),
      failure('ERR_TOO_LONG'),
    )
    const cut = await prepare(options(completion, { onTooLong: 'truncate-right' }), tokenizer)
    assert.equal(cut.counts.unstopped, 1)
  })

  it('says as what each file was read', async () => {
    const file = await write('said.jsonl', jsonl(exchange('a', 'b'), exchange('c', 'd')))
    const { formats } = await prepare(options(file), tokenizer)
    assert.deepEqual(formats, [{ file, format: 'messages', evidence: 'the first 2 rows have "messages": messages' }])
  })
})
