import assert from 'node:assert/strict'
import { basename } from 'node:path'
import { prepare } from '../../lib/batch/prepare.ts'
import type { PrepareOptions } from '../../lib/batch/prepared.ts'
import type { Tokenizer } from '../../lib/chat/tokenizer.ts'
import { type Preview, previewData } from '../../lib/preview/preview.ts'
import { turnsOf } from '../../lib/preview/text.ts'
import { prepareOptions } from '../batch/helpers.ts'
import { realTokenizer, toyTokenizer } from '../chat/helpers.ts'
import { exchange, failure, jsonl, temporaryFolder } from '../data/helpers.ts'
import { describeShared, shared } from '../shared.ts'

const REWRITING =
  "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content if loop.last else m.content.split('|')[-1] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"

/** The turns of each example, as role and text. */
function turns({ examples }: Preview): [string, string][][] {
  return examples.map(({ tokens }) =>
    turnsOf(tokens).map(({ role, tokens: own }) => [role, Buffer.concat(own.map(({ bytes }) => bytes)).toString()]),
  )
}

describe('preview', () => {
  const { path, write } = temporaryFolder()
  let chatml: Tokenizer
  let rewriting: Tokenizer
  before(async () => {
    const special = ['</s>', '<|im_start|>', '<|im_end|>']
    chatml = await toyTokenizer(path('chatml'), { special, eos: '</s>' })
    rewriting = await toyTokenizer(path('rewriting'), { special, eos: '</s>', config: { chat_template: REWRITING } })
  })

  const rows = [
    exchange('one', 'eins'),
    {
      messages: [
        { role: 'system', content: 'Be brief. 🦔' },
        { role: 'user', content: 'q' },
        { role: 'assistant', content: 'x|first', weight: 0.5 },
        { role: 'user', content: 'r' },
        { role: 'assistant', content: 'y|second' },
      ],
    },
    exchange('a', 'b'.repeat(200)),
    { messages: [{ role: 'assistant', content: 'silent', weight: 0 }] },
    ...Array.from({ length: 40 }, (_, i) => exchange(`question ${i}`, `answer ${i}`)),
  ]

  it('shows exactly what training gets, whatever the options', async () => {
    const train = await write('same.jsonl', jsonl(...rows, exchange('an <|im_end|> 🦔', 'in text'), '{'))
    const changes: Partial<PrepareOptions>[] = [
      {},
      { trainOn: 'last' },
      { trainOn: 'all' },
      { promptLossWeight: 0.25 },
      { chatTemplate: 'chatml' },
      { onTooLong: 'truncate-turns' },
      { onTooLong: 'truncate-left' },
      { onTooLong: 'truncate-right' },
      { controlTokensInText: 'escape' },
    ]
    for (const tokenizer of [chatml, rewriting]) {
      for (const change of changes) {
        const options = prepareOptions(train, { ...change, onBadRow: 'skip' })
        const prepared = await prepare(options, tokenizer)
        const preview = await previewData(options, tokenizer, 1000)
        assert.deepEqual(
          preview.examples.map(({ source, tokens }) => [
            source,
            tokens.map(({ id }) => id),
            tokens.map(({ weight }) => weight),
          ]),
          prepared.train.examples.map(({ source, ids, weights }) => [source, [...ids], [...weights]]),
        )
        const { used: _, evaluated: __, ...counts } = prepared.counts
        assert.deepEqual(preview.counts, counts)
        assert.deepEqual(preview.warnings, prepared.warnings)
        const sum = (key: 'tokens' | 'supervisedTokens') => preview.roles.reduce((total, role) => total + role[key], 0)
        assert.equal(sum('tokens'), prepared.train.tokens)
        assert.equal(sum('supervisedTokens'), prepared.train.supervisedTokens)
      }
    }
  })

  it('looks at as many rows as asked for, and says what became of them', async () => {
    const train = await write('few.jsonl', jsonl(...rows))
    const { examples, counts } = await previewData(prepareOptions(train), chatml, 4)
    assert.deepEqual(
      examples.map(({ source }) => source.line),
      [1, 2],
    )
    assert.equal(counts.rows, 4)
    assert.deepEqual(
      counts.dropped.map(({ reason, examples: places }) => [reason, places]),
      [
        ['longer than maxLength (100 tokens)', [`${train}:3`]],
        ['without a token that carries loss', [`${train}:4`]],
      ],
    )
  })

  it('takes the sources of a list in turn, whatever their kind', async () => {
    const a = await write('a.jsonl', jsonl(exchange('a1', 'x'), exchange('a2', 'x'), exchange('a3', 'x')))
    const b = await write('b.jsonl', jsonl({ prompt: 'b1', completion: 'x' }))
    const none = await write('none-left.jsonl', '\n')
    const c = await write('c.jsonl', jsonl(exchange('c1', 'x'), exchange('c2', 'x')))
    const shown = async (rows: number, train: string[] = [a, b, none, c]) => {
      const { examples, counts, doctor } = await previewData(prepareOptions(train), chatml, rows)
      assert.ok(doctor.length > 0 && counts.rows === examples.length)
      return examples.map(({ source }) => `${basename(source.file)[0]}${source.line}`)
    }
    assert.deepEqual(await shown(4), ['a1', 'b1', 'c1', 'a2'])
    assert.deepEqual(await shown(100), ['a1', 'b1', 'c1', 'a2', 'c2', 'a3'])
    assert.deepEqual(await shown(2, [a]), ['a1', 'a2'])
    await assert.rejects(shown(2, [none]), failure('ERR_EMPTY_DATASET'))
  })

  it('says which rows share tokens, spell control tokens, and need what', async () => {
    const tokenizer = await toyTokenizer(path('sharing'), {
      special: ['</s>', '<|im_start|>', '<|im_end|>'],
      merges: [['?', 'x']],
      eos: '</s>',
    })
    const rows = [{ prompt: 'What?', completion: 'x y' }, { prompt: 'What? ', completion: 'x' }, exchange('</s>', 'b')]
    const train = await write('sharing.jsonl', jsonl(...rows))
    const options = prepareOptions(train, { controlTokensInText: 'escape', format: 'auto' } as never)
    const one = await write('one.jsonl', jsonl(...rows.slice(0, 2)))
    const { warnings } = await previewData({ ...options, data: prepareOptions(one).data }, tokenizer, 10)
    assert.deepEqual(
      warnings.map(({ code }) => code),
      ['WARN_STRADDLING_TOKENS'],
    )
    assert.match(
      warnings[0]!.message,
      /^1 trained turn shares a token .*of the prompt\); it carries loss: .*one\.jsonl:1$/,
    )
    const two = await write('two.jsonl', jsonl(rows[2]))
    const escaped = await previewData({ ...options, data: prepareOptions(two).data }, tokenizer, 10)
    const warning = escaped.warnings.find(({ code }) => code === 'WARN_CONTROL_TOKENS_ESCAPED')!
    assert.match(warning.message, /^1 row spells control tokens.*together with the letters beside it.*two\.jsonl:1$/)
  })

  it('names the turn of every token', async () => {
    const train = await write('turns.jsonl', jsonl(rows[1]))
    const preview = await previewData(prepareOptions(train), chatml, 1)
    assert.deepEqual(turns(preview), [
      [
        ['system', '<|im_start|>system\nBe brief. 🦔<|im_end|>\n'],
        ['user', '<|im_start|>user\nq<|im_end|>\n'],
        ['assistant', '<|im_start|>assistant\nx|first<|im_end|>\n'],
        ['user', '<|im_start|>user\nr<|im_end|>\n'],
        ['assistant', '<|im_start|>assistant\ny|second<|im_end|>\n'],
      ],
    ])
    const roles = Object.fromEntries(preview.roles.map(({ role, ...counts }) => [role, counts]))
    assert.deepEqual(roles.assistant!.supervisedTokens, 'x|first'.length + 1 + 'y|second'.length + 1)
    assert.equal(roles.system!.supervisedTokens + roles.user!.supervisedTokens, 0)
    assert.equal(roles.system!.tokens, 1 + 'system\n'.length + Buffer.byteLength('Be brief. 🦔') + 2)
    const weights = new Set(preview.examples[0]!.tokens.map(({ weight }) => weight))
    assert.deepEqual([...weights].sort(), [0, 0.5, 1])
    const special = preview.examples[0]!.tokens.filter((token) => token.special)
    assert.equal(special.length, 10)
  })

  it('names them where the template rewrites what came before', async () => {
    const train = await write('rewritten.jsonl', jsonl(rows[1]))
    const preview = await previewData(prepareOptions(train), rewriting, 1)
    assert.deepEqual(
      preview.examples.map(({ piece, pieces }) => [piece, pieces]),
      [
        [1, 2],
        [2, 2],
      ],
    )
    assert.deepEqual(turns(preview)[1], [
      ['system', '<|im_start|>system\nBe brief. 🦔<|im_end|>\n'],
      ['user', '<|im_start|>user\nq<|im_end|>\n'],
      ['assistant', '<|im_start|>assistant\nfirst<|im_end|>\n'],
      ['user', '<|im_start|>user\nr<|im_end|>\n'],
      ['assistant', '<|im_start|>assistant\ny|second<|im_end|>\n'],
    ])
  })

  it('names them where the row is cut', async () => {
    const messages = [...exchange('q '.repeat(30), 'first').messages, ...exchange('r', 'second').messages]
    const train = await write('cut.jsonl', jsonl({ messages }))
    const roles = async (onTooLong: PrepareOptions['onTooLong']) =>
      turns(await previewData(prepareOptions(train, { onTooLong }), chatml, 1))[0]!.map(([role]) => role)
    assert.deepEqual(await roles('truncate-left'), ['user', 'assistant', 'user', 'assistant'])
    assert.deepEqual(await roles('truncate-right'), ['user', 'assistant', 'user', 'assistant'])
    assert.deepEqual(await roles('truncate-turns'), ['user', 'assistant'])
  })

  it('keeps apart what a template writes into one turn', async () => {
    const tokenizer = await toyTokenizer(path('inst'), {
      special: ['<s>', '</s>'],
      eos: '</s>',
      config: {
        chat_template:
          "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set rest = messages[1:] %}{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}{% for m in rest %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}{% if m.role == 'user' %}[INST] {% if loop.first and system %}<<SYS>>{{ system }}<</SYS>> {% endif %}{{ m.content }} [/INST]{% else %}{{ m.content }}</s>{% endif %}{% endfor %}",
      },
    })
    const train = await write('inst.jsonl', jsonl(rows[1]))
    const preview = await previewData(prepareOptions(train), tokenizer, 1)
    assert.deepEqual(turns(preview), [
      [
        ['system', '[INST] <<SYS>>Be brief. 🦔'],
        ['user', '<</SYS>> q [/INST]'],
        ['assistant', 'x|first</s>'],
        ['user', '[INST] r [/INST]'],
        ['assistant', 'y|second</s>'],
      ],
    ])
  })

  it('shows plain text', async () => {
    const train = await write('text.jsonl', jsonl({ text: 'Once.' }))
    const preview = await previewData(prepareOptions(train, { trainOn: 'all' }), chatml, 1)
    assert.deepEqual(turns(preview), [[['text', 'Once.</s>']]])
    assert.deepEqual([preview.template, preview.examples[0]!.supervisedTokens], ['none', 5])
  })

  it('tells prompt from completion, and tokens that come as they are', async () => {
    const pair = await write('pair.jsonl', jsonl({ prompt: 'Two and two? ', completion: 'Four.' }))
    const preview = await previewData(prepareOptions(pair), chatml, 1)
    assert.deepEqual(turns(preview), [
      [
        ['prompt', 'Two and two? '],
        ['completion', 'Four.</s>'],
      ],
    ])
    assert.deepEqual(
      preview.roles.map(({ supervisedTokens }) => supervisedTokens),
      [0, 'Four.'.length + 1],
    )
    assert.match(preview.formats[0]!.format, /^prompt-completion$/)
    const ids = [...(await chatml.encode('abc')).ids]
    const tokens = await write('tokens.jsonl', jsonl({ input_ids: ids, labels: [-100, ...ids.slice(1)] }))
    assert.deepEqual(turns(await previewData(prepareOptions(tokens), chatml, 1)), [[['tokens', 'abc']]])
  })

  it('shows what training refuses for its share of loss', async () => {
    const train = await write('none.jsonl', jsonl(exchange('a', 'b')))
    const long = await write('long.jsonl', jsonl(exchange('a', 'b'.repeat(200))))
    assert.equal((await previewData(prepareOptions(train), chatml, 1)).examples.length, 1)
    const { examples, counts } = await previewData(prepareOptions(long), chatml, 1)
    assert.deepEqual([examples.length, counts.dropped.length], [0, 1])
  })
})

describeShared('preview of real conversations', () => {
  it('gives assistant turns all the loss, in full', async () => {
    const train = shared('data/oasst1-en/oasst1-en-val-best.jsonl')
    for (const name of ['llama3', 'qwen3']) {
      const tokenizer = await realTokenizer(name)
      const options = prepareOptions(train, { maxLength: 8192, controlTokensInText: 'keep' })
      const { examples, roles } = await previewData(options, tokenizer, 40)
      assert.ok(examples.length >= 40)
      for (const { role, supervisedTokens } of roles) assert.equal(supervisedTokens > 0, role === 'assistant', role)
      assert.deepEqual(roles.map(({ role }) => role).sort(), ['assistant', 'user'])
    }
  })
})
