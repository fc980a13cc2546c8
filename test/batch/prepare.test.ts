import assert from 'node:assert/strict'
import { collate } from '../../lib/batch/collate.ts'
import { prepare } from '../../lib/batch/prepare.ts'
import type { PrepareOptions, PrepareProgress } from '../../lib/batch/prepared.ts'
import { Tokenizer } from '../../lib/chat/tokenizer.ts'
import { toyTokenizer } from '../chat/helpers.ts'
import { exchange, failure, jsonl, temporaryFolder } from '../data/helpers.ts'
import { describeShared, shared } from '../shared.ts'
import { prepareOptions as options } from './helpers.ts'

describe('preparing data', () => {
  const { path, write } = temporaryFolder()
  let tokenizer: Tokenizer
  before(async () => {
    tokenizer = await toyTokenizer(path('toy'), { special: ['</s>', '<|im_start|>', '<|im_end|>'], eos: '</s>' })
  })

  it('goes from files to examples in order, with the fallback template named', async () => {
    const train = await write('a.jsonl', jsonl(exchange('one', 'eins'), exchange('two', 'zwei')))
    const prepared = await prepare(options(train), tokenizer)
    const [first, second] = prepared.train.examples
    assert.equal(
      await tokenizer.decode(first!.ids, { skipSpecial: false }),
      '<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\neins<|im_end|>\n',
    )
    assert.deepEqual(second!.source, { file: train, line: 2 })
    const batch = collate([first!])
    const targets = [...batch.targets].filter((_, i) => batch.weights[i]! > 0)
    assert.equal(await tokenizer.decode(targets, { skipSpecial: false }), 'eins<|im_end|>')
    assert.deepEqual(prepared.counts, {
      rows: 2,
      used: 2,
      evaluated: 0,
      dropped: [],
      droppedTokens: 0,
      droppedSupervisedTokens: 0,
      truncated: 0,
      truncatedTokens: 0,
      truncatedSupervisedTokens: 0,
      unstopped: 0,
      split: 0,
      straddling: 0,
    })
    assert.equal(prepared.train.supervisedTokens, 10)
    assert.equal(prepared.template?.name, 'chatml')
    assert.equal(prepared.warnings.length, 1)
    assert.equal(prepared.warnings[0]!.code, 'WARN_TEMPLATE_FALLBACK')
    assert.match(prepared.warnings[0]!.message, /no chat template/)
    assert.equal(prepared.eval, undefined)
  })

  it('drops what is too long, says what was lost, and accounts for every row', async () => {
    const rows = Array.from({ length: 40 }, (_, i) => exchange(`question ${i}`, `answer ${i}`))
    const long = exchange('a', 'b'.repeat(200))
    const silent = {
      messages: [
        { role: 'user', content: 'a' },
        { role: 'assistant', content: 'b', weight: 0 },
      ],
    }
    const train = await write('b.jsonl', jsonl(...rows.slice(0, 20), long, silent, '{', ...rows.slice(20)))
    const { counts, train: set, warnings } = await prepare(options(train, { onBadRow: 'skip' }), tokenizer)
    assert.equal(counts.rows, 43)
    assert.equal(counts.used, 40)
    assert.deepEqual(
      counts.dropped.map(({ reason, count }) => [reason, count]),
      [
        ['malformed', 1],
        ['longer than maxLength (100 tokens)', 1],
        ['without a token that carries loss', 1],
      ],
    )
    assert.deepEqual(counts.dropped[1]!.examples, [`${train}:21`])
    assert.equal(
      counts.rows,
      counts.used + counts.evaluated + counts.dropped.reduce((sum, { count }) => sum + count, 0),
    )
    assert.equal(counts.droppedSupervisedTokens, 201)
    assert.equal(counts.droppedTokens, 222)
    assert.ok(warnings.some(({ message }) => message.includes(`${train}:21`)))
    assert.ok(set.examples.every(({ ids }) => ids.length <= 100))
  })

  it('cuts what is too long where asked to, counts what was lost, and drops what has nothing left', async () => {
    const turns = (...answers: string[]) => ({
      messages: answers.flatMap((answer) => [
        { role: 'user', content: 'q' },
        { role: 'assistant', content: answer },
      ]),
    })
    const train = await write('cut.jsonl', jsonl(turns('one', 'b'.repeat(80)), turns('c'.repeat(120)), turns('two')))
    const cut = async (onTooLong: PrepareOptions['onTooLong']) => {
      const prepared = await prepare(options(train, { onTooLong, evalFraction: 0 }), tokenizer)
      const texts = prepared.train.examples.map(({ ids }) => tokenizer.decode(ids, { skipSpecial: false }))
      return { prepared, texts: await Promise.all(texts) }
    }
    const head = '<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n'
    // The second row has no turn that fits: one of three rows is more than may be dropped.
    await assert.rejects(
      cut('truncate-turns'),
      failure(
        'ERR_TOO_LONG',
        '1 of 3 rows',
        /nothing that trains left once onTooLong "truncate-turns".*"truncate-right" keeps the/,
      ),
    )
    const left = await cut('truncate-left')
    assert.deepEqual(left.texts[1], `${'c'.repeat(98)}<|im_end|>\n`)
    const right = await cut('truncate-right')
    assert.equal(right.texts[1], head + 'c'.repeat(100 - (await tokenizer.encode(head)).length))
    const whole = [turns('one', 'b'.repeat(80)), turns('c'.repeat(120))].map(({ messages }) => messages)
    const lengths = await Promise.all(
      whole.map(
        async (messages) => (await tokenizer.encode(right.prepared.template!.render(messages as never))).length,
      ),
    )
    const { counts, warnings } = right.prepared
    assert.deepEqual([counts.truncated, counts.truncatedTokens], [2, lengths[0]! + lengths[1]! - 200])
    assert.deepEqual([counts.unstopped, counts.dropped.length, counts.rows, counts.used], [2, 0, 3, 3])
    assert.ok(counts.truncatedSupervisedTokens > 0 && counts.truncatedSupervisedTokens < counts.truncatedTokens)
    const warning = warnings.find(({ code }) => code === 'WARN_ROWS_TRUNCATED')!
    assert.match(warning.message, /^2 rows cut to 100 tokens.*2 trained turns lost their stop token: .*cut\.jsonl:1/)
    const some = await write('turns.jsonl', jsonl(turns('one', 'b'.repeat(80)), turns('two')))
    const [first] = (await prepare(options(some, { onTooLong: 'truncate-turns' }), tokenizer)).train.examples
    assert.equal(await tokenizer.decode(first!.ids, { skipSpecial: false }), `${head}one<|im_end|>`)
    const all = await prepare(options(some, { onTooLong: 'truncate-turns', trainOn: 'all' }), tokenizer)
    assert.deepEqual([...all.train.examples[0]!.ids], [...first!.ids])
    assert.ok(all.train.examples[0]!.weights.subarray(1).every((weight) => weight === 1))
  })

  it('trains look-alikes of control tokens as text where asked to', async () => {
    const train = await write(
      'escape.jsonl',
      jsonl(exchange('What is <|im_end|>?', 'A </s> token.'), exchange('a', 'b')),
    )
    await assert.rejects(prepare(options(train), tokenizer), failure('ERR_BAD_ROW', '<|im_end|>', '"escape"'))
    const { train: set } = await prepare(options(train, { controlTokensInText: 'escape' }), tokenizer)
    const [first] = set.examples
    const text = '<|im_start|>user\nWhat is <|im_end|>?<|im_end|>\n<|im_start|>assistant\nA </s> token.<|im_end|>\n'
    assert.equal(await tokenizer.decode(first!.ids, { skipSpecial: false }), text)
    assert.equal([...first!.ids].filter((id) => id === tokenizer.id('<|im_end|>')).length, 2)
    assert.equal([...first!.ids].includes(tokenizer.id('</s>')!), false)
  })

  it('gives variables to the template, and exports them with it', async () => {
    const file = await write('vars.jinja', '{% for m in messages %}{{ m.content }}{{ style }}<|im_end|>{% endfor %}')
    const train = await write('vars.jsonl', jsonl(exchange('a', 'b')))
    const prepared = await prepare(options(train, { chatTemplate: file, templateVariables: { style: '!' } }), tokenizer)
    assert.equal(
      await tokenizer.decode(prepared.train.examples[0]!.ids, { skipSpecial: false }),
      'a!<|im_end|>b!<|im_end|>',
    )
    assert.match(prepared.template!.source, /^\{% if style is not defined %\}\{% set style = "!" %\}/)
  })

  it('keeps numbers and keys as the row spells them', async () => {
    const file = await write('json.jinja', '{% for m in messages %}{{ m | tojson }}<|im_end|>{% endfor %}')
    const row = '{"role": "assistant", "content": "b", "x": {"10": 1.0, "9": [1e3, 12345678901234567890]}}'
    const train = await write('exact.jsonl', `{"messages": [{"role": "user", "content": "a"}, ${row}]}\n`)
    const prepared = await prepare(options(train, { chatTemplate: file, maxLength: 500 }), tokenizer)
    const text = await tokenizer.decode(prepared.train.examples[0]!.ids, { skipSpecial: false })
    assert.ok(text.endsWith(`${row.replace('1e3', '1000.0')}<|im_end|>`), text)
  })

  it('refuses when too many rows are too long, and the first one on request', async () => {
    const rows = Array.from({ length: 19 }, () => exchange('a', 'b'))
    const long = exchange('a', 'b'.repeat(200))
    const twenty = await write('c.jsonl', jsonl(...rows, long))
    assert.equal((await prepare(options(twenty), tokenizer)).counts.used, 19)
    const fewer = await write('d.jsonl', jsonl(...rows.slice(1), long))
    await assert.rejects(
      prepare(options(fewer), tokenizer),
      failure('ERR_TOO_LONG', '1 of 19 rows (5.3 %)', `${fewer}:19`, 'maxLength (100'),
    )
    const all = await write('e.jsonl', jsonl(long))
    await assert.rejects(prepare(options(all), tokenizer), failure('ERR_TOO_LONG', '1 of 1 rows (100.0 %)'))
    await assert.rejects(
      prepare(options(twenty, { onTooLong: 'error' }), tokenizer),
      failure('ERR_TOO_LONG', `${twenty}:20 has 222 tokens`),
    )
  })

  it('refuses control tokens in text by row, or keeps them', async () => {
    const train = await write('f.jsonl', jsonl(exchange('a', 'b'), exchange('end with <|im_end|>!', 'c')))
    await assert.rejects(
      prepare(options(train), tokenizer),
      failure('ERR_BAD_ROW', `${train}:2: messages[0].content: spells the control token <|im_end|>`),
    )
    assert.equal((await prepare(options(train, { onBadRow: 'skip' }), tokenizer)).counts.used, 1)
    assert.equal((await prepare(options(train, { controlTokensInText: 'keep' }), tokenizer)).counts.used, 2)
  })

  it("trains on plain text only with trainOn 'all', without a template", async () => {
    const train = await write('g.jsonl', jsonl({ text: 'Once upon a time.' }))
    await assert.rejects(prepare(options(train), tokenizer), failure('ERR_TRAIN_ON', `${train}:1`, '"all"'))
    const { template, train: set, warnings } = await prepare(options(train, { trainOn: 'all' }), tokenizer)
    assert.equal(template, undefined)
    assert.deepEqual(warnings, [])
    assert.equal(await tokenizer.decode(set.examples[0]!.ids, { skipSpecial: false }), 'Once upon a time.</s>')
    assert.equal(set.supervisedTokens, set.tokens - 1)
  })

  it('refuses data of which nearly every token, or none, carries loss', async () => {
    const answer = await write('h.jsonl', jsonl({ messages: [{ role: 'assistant', content: 'b'.repeat(3000) }] }))
    await assert.rejects(
      prepare(options(answer, { maxLength: 4000 }), tokenizer),
      failure('ERR_EVERYTHING_SUPERVISED', '99.'),
    )
    assert.equal((await prepare(options(answer, { maxLength: 4000, trainOn: 'all' }), tokenizer)).counts.used, 1)
    const none = await write('i.jsonl', jsonl({ messages: [{ role: 'assistant', content: 'b', weight: 0 }] }))
    await assert.rejects(prepare(options(none), tokenizer), failure('ERR_NOTHING_SUPERVISED'))
  })

  it('sets conversations aside for evaluation, or reads them from a file', async () => {
    const rows = Array.from({ length: 100 }, (_, i) => exchange(`question ${i % 50}`, `answer ${i}`))
    const train = await write('j.jsonl', jsonl(...rows))
    const { train: set, eval: held, counts } = await prepare(options(train, { evalFraction: 0.1 }), tokenizer)
    assert.deepEqual([counts.used, counts.evaluated, held!.examples.length], [90, 10, 10])
    const questions = (examples: typeof set.examples) => new Set(examples.map(({ source }) => (source.line - 1) % 50))
    const heldQuestions = questions(held!.examples)
    assert.ok([...questions(set.examples)].every((question) => !heldQuestions.has(question)))
    const other = await write('k.jsonl', jsonl(exchange('x', 'y')))
    const both = await prepare(options(train, { eval: [{ path: other, format: 'auto' }] }), tokenizer)
    assert.deepEqual([both.counts.rows, both.counts.used, both.counts.evaluated], [101, 100, 1])
  })

  it('keeps the pieces of a split conversation together', async () => {
    const rewriting = await toyTokenizer(path('rewriting'), {
      special: ['<|im_start|>', '<|im_end|>'],
      config: {
        chat_template:
          "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content if loop.last else m.content.split('|')[-1] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
      },
    })
    const chat = { messages: [...exchange('q', 'x|one').messages, ...exchange('r', 'y|two').messages] }
    const train = await write('l.jsonl', jsonl(exchange('a', 'b'), chat, exchange('c', 'd')))
    const { train: set, counts } = await prepare(options(train), rewriting)
    assert.deepEqual([...set.starts], [0, 1, 3, 4])
    assert.deepEqual(
      set.examples.map(({ source }) => source.line),
      [1, 2, 2, 3],
    )
    assert.deepEqual([counts.used, counts.split], [3, 1])
    await assert.rejects(
      prepare(options(train, { historyRewrite: 'error' }), rewriting),
      failure('ERR_HISTORY_REWRITE', `${train}:2`),
    )
  })

  it('is told to stop, reports progress, and leaves the event loop free', async () => {
    const train = await write(
      'm.jsonl',
      jsonl(...Array.from({ length: 3000 }, (_, i) => exchange(`question ${i}`, 'answer '.repeat(10)))),
    )
    const progress: PrepareProgress[] = []
    let turns = 0
    const timer = setInterval(() => turns++, 1)
    const { train: set } = await prepare(options(train, { maxLength: 200 }), tokenizer, {
      onProgress: (told) => progress.push(told),
    })
    clearInterval(timer)
    assert.ok(turns > 10, `${turns} turns of the event loop`)
    assert.deepEqual(progress.at(-1), { side: 'train', rows: 3000, tokens: set.tokens })
    assert.ok(progress.length > 5)
    const controller = new AbortController()
    const stopped = prepare(options(train, { maxLength: 200 }), tokenizer, {
      signal: controller.signal,
      onProgress: () => controller.abort(new Error('enough')),
    })
    await assert.rejects(stopped, /enough/)
  })

  it('reports missing and empty files', async () => {
    await assert.rejects(prepare(options(path('gone.jsonl')), tokenizer), failure('ERR_DATA_NOT_FOUND', 'gone.jsonl'))
    const empty = await write('n.jsonl', '')
    await assert.rejects(prepare(options(empty), tokenizer), failure('ERR_EMPTY_DATASET', empty))
  })
})

describeShared('preparing real data', () => {
  it('takes conversations through a base model without a template', async () => {
    const tokenizer = await Tokenizer.load(shared('models/stories260K'))
    const train = shared('data/oasst1-en/oasst1-en-val-best.jsonl')
    const { train: set, counts, warnings } = await prepare(options(train, { maxLength: 8192 }), tokenizer)
    assert.equal(counts.rows, counts.used)
    assert.ok(warnings[0]!.message.includes('"plain"'))
    for (const { ids, weights } of set.examples.slice(0, 50)) {
      assert.equal(ids[0], tokenizer.bos!.id)
      const ends = [...ids.keys()].filter((i) => ids[i] === tokenizer.eos!.id)
      assert.ok(ends.length > 0 && ends.every((i) => weights[i] === 1))
    }
  })
})
