import assert from 'node:assert/strict'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { chooseTemplate } from '../../lib/chat/template.ts'
import { Tokenizer } from '../../lib/chat/tokenizer.ts'
import { readContainer } from '../../lib/data/containers/index.ts'
import { type LogProbOptions, logProbabilities } from '../../lib/index.ts'
import { readPairs } from '../../lib/preference/read.ts'
import { tokenizePairs } from '../../lib/preference/tokenize.ts'
import { tunesmithHere } from '../cli/spawn.ts'
import { describeShared, shared } from '../shared.ts'
import { tokenizer as base } from '../trainer/runs.ts'

interface Case {
  name: string
  rows: object[]
  maxLength?: number
  prompt_ids: number[][]
  chosen_ids: number[][]
  rejected_ids: number[][]
  ref_chosen_logps: number[]
  ref_rejected_logps: number[]
}

const golden: { template: string; cases: Case[] } = JSON.parse(
  readFileSync(new URL('../golden/logprobs.json', import.meta.url), 'utf8'),
)

const pair = { prompt: 'Once upon a time', chosen: ' there was a dog.', rejected: ' no.' }

let folder: string
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'tunesmith-'))
})
after(() => rmSync(folder, { recursive: true }))

let files = 0
function write(rows: object[] | string, extension = 'jsonl'): string {
  const path = join(folder, `pairs${files++}.${extension}`)
  writeFileSync(path, typeof rows === 'string' ? rows : `${rows.map((row) => JSON.stringify(row)).join('\n')}\n`)
  return path
}

describeShared('reference log-probabilities', () => {
  const model = shared('models/stories260K')
  const score = (options: Partial<LogProbOptions>) => logProbabilities({ model, pairs: [pair], threads: 2, ...options })
  let chatTemplate: string
  before(() => {
    chatTemplate = join(folder, 'template.jinja')
    writeFileSync(chatTemplate, golden.template)
  })

  for (const { name, rows, maxLength, ...expected } of golden.cases) {
    it(`are those of TRL: ${name}`, async () => {
      const tokenizer = await Tokenizer.load(model)
      const { template } = await chooseTemplate(chatTemplate, tokenizer)
      const read = await readPairs(rows)
      const settings = { tokenizer, template, maxLength: maxLength ?? 512, cuts: maxLength !== undefined }
      for (const [index, { chosen, rejected, promptTokens }] of (await tokenizePairs(read, settings)).entries()) {
        const prompt = expected.prompt_ids[index]!
        assert.equal(promptTokens, prompt.length)
        for (const [ids, answer] of [
          [chosen, expected.chosen_ids[index]!],
          [rejected, expected.rejected_ids[index]!],
        ] as const)
          assert.deepEqual([...ids], [...prompt, ...answer].slice(0, settings.maxLength))
      }
      const { pairs, cut } = await score({ pairs: rows, chatTemplate, maxLength })
      assert.equal(pairs.length, rows.length)
      assert.equal(cut > 0, maxLength !== undefined)
      for (const [index, { chosen, rejected, chosenTokens, rejectedTokens }] of pairs.entries()) {
        near(chosen, expected.ref_chosen_logps[index]!)
        near(rejected, expected.ref_rejected_logps[index]!)
        if (maxLength === undefined) assert.equal(chosenTokens.length, expected.chosen_ids[index]!.length)
        near(
          chosenTokens.reduce((sum, value) => sum + value, 0),
          chosen,
        )
        near(
          rejectedTokens.reduce((sum, value) => sum + value, 0),
          rejected,
        )
        assert.ok([...chosenTokens, ...rejectedTokens].every((value) => value < 0))
      }
    })
  }

  it('do not depend on how answers are packed, and are the same on the reference backend', async () => {
    const { rows } = golden.cases[0]!
    const whole = await score({ pairs: rows })
    for (const microBatchTokens of [1, 60, 150]) {
      const { pairs } = await score({ pairs: rows, microBatchTokens })
      for (const [index, { chosenTokens }] of pairs.entries())
        for (const [token, value] of chosenTokens.entries()) near(value, whole.pairs[index]!.chosenTokens[token]!)
    }
    const reference = await score({ pairs: rows, device: 'reference' })
    for (const [index, { rejected }] of reference.pairs.entries()) near(rejected, whole.pairs[index]!.rejected)
  })

  it('are written beside the columns of the input, spelt as they were', async () => {
    const pairs = write(
      `{"id": 12345678901234567890, "score": 1.0, "prompt": "Once upon a time", "chosen": " there was.", "rejected": " no."}\n`,
    )
    const output = join(folder, 'scored.jsonl')
    const progress: number[][] = []
    const result = await score({ pairs, output, onProgress: (...numbers) => progress.push(numbers) })
    assert.equal(result.output, output)
    assert.deepEqual(progress, [[1, 1]])
    const text = readFileSync(output, 'utf8')
    assert.match(text, /^\{"id":12345678901234567890,"score":1\.0,"prompt":"Once upon a time","chosen":/)
    const row = JSON.parse(text)
    const [found] = result.pairs
    assert.equal(row.ref_chosen_logps, found!.chosen)
    assert.equal(row.ref_rejected_logps, found!.rejected)
    assert.deepEqual(row.ref_chosen_per_token_logps, [...found!.chosenTokens])
    assert.deepEqual(row.ref_rejected_per_token_logps, [...found!.rejectedTokens])
    // Again: only with permission.
    await assert.rejects(score({ pairs, output }), { code: 'ERR_OUTPUT_EXISTS' })
    assert.equal(readFileSync(output, 'utf8'), text)
    await score({ pairs, output, overwrite: true })
    assert.deepEqual(
      readdirSync(folder).filter((name) => name.includes('partial')),
      [],
    )
  })

  it('are written as Parquet with the types of the rows', async () => {
    const messages = golden.cases.find(({ name }) => name === 'messages')!.rows as object[]
    const rows = messages.map((row, index) => ({
      ...row,
      id: index,
      note: index === 0 ? null : 'Ä😀',
      share: index / 2,
    }))
    const output = join(folder, 'scored.parquet')
    const { pairs } = await score({ pairs: write(rows), output, chatTemplate })
    const read: unknown[] = []
    for await (const batch of readContainer(output)) for (const { value } of batch) read.push(value)
    const expected = rows.map((row, index) => ({
      ...row,
      // The reader leaves null out.
      note: row.note ?? undefined,
      ref_chosen_logps: pairs[index]!.chosen,
      ref_rejected_logps: pairs[index]!.rejected,
      ref_chosen_per_token_logps: [...pairs[index]!.chosenTokens],
      ref_rejected_per_token_logps: [...pairs[index]!.rejectedTokens],
    }))
    const plain = (value: unknown) => JSON.parse(JSON.stringify(value))
    assert.deepEqual(plain(read), plain(expected))
    // What was written can be scored again, once the columns are gone.
    await assert.rejects(score({ pairs: output, chatTemplate }), { message: /ref_chosen_logps: is there already/ })
    const mixed = write([
      { ...pair, note: 1 },
      { ...pair, note: 'one' },
    ])
    const target = join(folder, 'mixed.parquet')
    await assert.rejects(score({ pairs: mixed, output: target }), {
      code: 'ERR_DATA_FORMAT',
      message: /the column note holds integer and string values/,
    })
    assert.ok(!readdirSync(folder).some((name) => name.includes('mixed')))
  })

  it('come from tables too, whose lists are JSON text', async () => {
    const { rows } = golden.cases.find(({ name }) => name === 'messages')!
    const quoted = (value: unknown) => `"${JSON.stringify(value).replaceAll('"', '""')}"`
    const lines = (rows as Record<string, unknown>[]).map((row) =>
      [row.prompt, row.chosen, row.rejected].map(quoted).join(','),
    )
    const { pairs } = await score({
      pairs: write(`prompt,chosen,rejected\n${lines.join('\n')}\n`, 'csv'),
      chatTemplate,
    })
    const expected = await score({ pairs: rows, chatTemplate })
    assert.deepEqual(pairs, expected.pairs)
  })

  it('tell of answers that change the encoding of their prompt', async () => {
    const { warnings } = await score({ pairs: golden.cases[0]!.rows })
    assert.match(
      warnings.find(({ code }) => code === 'WARN_PROMPT_BOUNDARY')!.message,
      /^2 of the answers change .* in pairs:3/,
    )
  })

  const messages = [{ role: 'user', content: 'Hi' }]
  const answer = (content: string) => [{ role: 'assistant', content }]
  const bad: [string, object[], string, RegExp][] = [
    ['equal answers', [pair, { ...pair, rejected: pair.chosen }], 'ERR_BAD_ROW', /:2: rejected: equals "chosen"/],
    ['an empty answer', [{ ...pair, rejected: '  ' }], 'ERR_BAD_ROW', /:1: rejected: is empty/],
    [
      'an empty turn',
      [{ prompt: messages, chosen: answer('a'), rejected: answer(' ') }],
      'ERR_BAD_ROW',
      /rejected\[0\]\.content: is empty/,
    ],
    [
      'an empty list',
      [{ prompt: messages, chosen: answer('a'), rejected: [] }],
      'ERR_BAD_ROW',
      /rejected: is an empty list/,
    ],
    ['an empty prompt', [{ ...pair, prompt: '' }], 'ERR_BAD_ROW', /:1: prompt: is empty/],
    [
      'no answer',
      [{ prompt: messages, chosen: messages, rejected: answer('a') }],
      'ERR_BAD_ROW',
      /chosen: has no assistant turn/,
    ],
    ['mixed kinds', [{ ...pair, chosen: answer('a') }], 'ERR_BAD_ROW', /prompt: expected a list/],
    [
      'mixed rows',
      [pair, { chosen: 'ab', rejected: 'ac' }],
      'ERR_BAD_ROW',
      /:2: prompt: is missing, unlike in the first row/,
    ],
    [
      'mixed layouts',
      [pair, { prompt: messages, chosen: answer('a'), rejected: answer('b') }],
      'ERR_BAD_ROW',
      /:2: chosen: is a list, unlike/,
    ],
    ['nothing in common', [{ chosen: 'abc', rejected: 'xyz' }], 'ERR_BAD_ROW', /rejected: begins unlike "chosen"/],
    ['no pair', [{ messages }], 'ERR_BAD_ROW', /:1: chosen: is missing: .* Found "messages"/],
    ['scored rows', [{ ...pair, ref_chosen_logps: 1 }], 'ERR_BAD_ROW', /ref_chosen_logps: is there already/],
    ['variables', [{ ...pair, chat_template_kwargs: {} }], 'ERR_BAD_ROW', /chat_template_kwargs: is not read/],
    [
      'a long prompt',
      [{ ...pair, prompt: 'word '.repeat(600) }],
      'ERR_TOO_LONG',
      /:1: the prompt has \d+ tokens, and with maxLength 512/,
    ],
    [
      'a long answer',
      [{ ...pair, chosen: ' word'.repeat(600) }],
      'ERR_TOO_LONG',
      /:1: chosen: .* the model's context holds 512/,
    ],
  ]
  for (const [what, rows, code, message] of bad)
    it(`refuse ${what}, and leave nothing behind`, async () => {
      const output = join(folder, 'none.jsonl')
      await assert.rejects(score({ pairs: write(rows), output }), { name: 'TunesmithError', code, message })
      assert.ok(!existsSync(output))
      assert.deepEqual(
        readdirSync(folder).filter((name) => name.includes('none')),
        [],
      )
    })

  it('refuse options, files and folders that are wrong', async () => {
    const wrong: [Partial<LogProbOptions>, string, RegExp][] = [
      [{ ouput: 'x' } as object, 'ERR_UNKNOWN_OPTION', /ouput is unknown; did you mean output\?/],
      [{ output: join(folder, 'x.csv') }, 'ERR_INVALID_OPTION', /output must be named \.jsonl or \.parquet/],
      [{ output: join(folder, 'none', 'x.jsonl') }, 'ERR_OUTPUT_NOT_WRITABLE', /cannot be written: ENOENT/],
      [{ pairs: join(folder, 'none.jsonl') }, 'ERR_DATA_NOT_FOUND', /does not exist/],
      [{ pairs: [] }, 'ERR_EMPTY_DATASET', /there is no pair to score/],
      [{ maxLength: 1000 }, 'ERR_INVALID_OPTION', /maxLength is 1000, but the model's context is 512/],
      [{ signal: AbortSignal.abort(new Error('enough')) }, 'enough', /enough/],
    ]
    for (const [options, code, message] of wrong) {
      const run = score({ output: join(folder, 'out.jsonl'), ...options })
      await assert.rejects(run, code === 'enough' ? { message } : { code, message })
    }
    const bareTemplate = join(folder, 'bare.jinja')
    writeFileSync(bareTemplate, "{% for m in messages %}{{ '[' + m.role + ']' + m.content }}{% endfor %}")
    const chat = [{ prompt: messages, chosen: answer('a'), rejected: answer('b') }]
    await assert.rejects(score({ pairs: chat, chatTemplate: bareTemplate }), {
      code: 'ERR_TEMPLATE',
      message: /has no generation prompt: it does not write "\[assistant\]"/,
    })
    await score({ chatTemplate: bareTemplate })
    mkdirSync(join(folder, 'taken.jsonl'))
    await assert.rejects(score({ output: join(folder, 'taken.jsonl') }), {
      code: 'ERR_OUTPUT_EXISTS',
      message: /is no file/,
    })
    const bare = join(folder, 'no-tokenizer')
    mkdirSync(bare)
    for (const name of ['config.json', 'model.safetensors']) symlinkSync(join(model, name), join(bare, name))
    const output = join(folder, 'out.jsonl')
    await assert.rejects(score({ model: bare, output }), { code: 'ERR_TOKENIZER_NOT_FOUND' })
    assert.ok(!readdirSync(folder).some((name) => name.includes('out.jsonl')))
  })

  it('end with their signal in the middle, and leave nothing behind', async () => {
    const reason = new Error('enough')
    const abort = new AbortController()
    const output = join(folder, 'ended.jsonl')
    const running = score({
      pairs: Array(300).fill(pair),
      output,
      signal: abort.signal,
      onProgress: () => {
        assert.ok(readdirSync(folder).some((name) => name.includes('ended') && name.endsWith('.partial')))
        abort.abort(reason)
      },
    })
    await assert.rejects(running, reason)
    assert.ok(!readdirSync(folder).some((name) => name.includes('ended')))
  })

  it('come from the command line', async () => {
    const pairs = write([pair, { ...pair, chosen: ' there was a small cat.' }])
    const output = join(folder, 'cli.jsonl')
    const { code, stdout, stderr } = await tunesmithHere(['logprobs', model, pairs, '--output', output, '--threads=2'])
    assert.equal(code, 0, stderr)
    assert.match(
      stdout,
      /^2 pairs in .*cli\.jsonl; mean log-probability -\d+\.\d+ chosen, -\d+\.\d+ rejected; chosen more likely in/,
    )
    assert.equal(readFileSync(output, 'utf8').trim().split('\n').length, 2)
    for (const args of [[], [model], [model, pairs], [model, pairs, '--output', 'x.jsonl', '--max-length', '1']])
      assert.equal((await tunesmithHere(['logprobs', ...args])).code, 2)
  })
})

describe('a folder that cannot be written', () => {
  it('is told before anything is computed', async () => {
    const model = join(folder, 'copy')
    cpSync(base, model, { recursive: true })
    await assert.rejects(logProbabilities({ model, pairs: [pair], output: '/proc/x.jsonl' }), {
      code: 'ERR_OUTPUT_NOT_WRITABLE',
    })
  })
})

/** The tolerance of the hand-over: 1e-3 absolute or 1e-5 relative. */
function near(found: number, expected: number): void {
  const error = Math.abs(found - expected)
  assert.ok(error < 1e-3 || error < 1e-5 * Math.abs(expected), `${found} instead of ${expected}`)
}
