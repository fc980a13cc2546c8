import assert from 'node:assert/strict'
import { mkdir } from 'node:fs/promises'
import fc from 'fast-check'
import { type BadRowPolicy, BadRows } from '../../lib/data/bad-rows.ts'
import { type Line, readLines } from '../../lib/data/jsonl.ts'
import { type RowFormat, resolveFiles } from '../../lib/data/paths.ts'
import { type ReadReport, type Row, readRows } from '../../lib/data/read.ts'
import { exchange, failure, jsonl, temporaryFolder } from './helpers.ts'

async function lines(path: string, longest?: number): Promise<Line[]> {
  const all: Line[] = []
  for await (const batch of readLines(path, longest)) all.push(...batch)
  return all
}

async function rows(paths: string | string[], onBadRow: BadRowPolicy = 'error', format: RowFormat = 'auto') {
  const report: ReadReport = { rows: 0, bad: new BadRows(onBadRow), warnings: [] }
  const all: Row[] = []
  const files = [paths].flat().map((path) => ({ path, format }))
  for await (const batch of readRows(files, report)) all.push(...batch)
  return { all, report }
}

describe('lines of a file', () => {
  const { path, write } = temporaryFolder()

  it('are numbered from 1, blank ones counted but left out', async () => {
    await write('a.jsonl', '\ufeff{"a":1}\r\n\r\n   \n{"b":"é😀"}\n\n[3]')
    assert.deepEqual(await lines(path('a.jsonl')), [
      { line: 1, text: '{"a":1}\r' },
      { line: 4, text: '{"b":"é😀"}' },
      { line: 6, text: '[3]' },
    ])
  })

  it('may be of any length and fall anywhere on the chunks that are read', async () => {
    const sizes = [1 << 20, (1 << 20) - 1, 3 << 20, 1, 5]
    await write('b.jsonl', sizes.map((size) => 'é'.repeat(size)).join('\n'))
    assert.deepEqual(
      (await lines(path('b.jsonl'))).map(({ text }) => text?.length),
      sizes,
    )
  })

  it('come back as they were written', async () => {
    const line = fc.string({ unit: 'grapheme' }).map((text) => `x${text.replace(/[\r\n]/g, '')}`)
    const text = fc.array(line)
    await fc.assert(
      fc.asyncProperty(text, fc.constantFrom('\n', '\r\n'), async (content, end) => {
        await write('c.jsonl', content.join(end))
        assert.deepEqual(
          (await lines(path('c.jsonl'))).map((line) => line.text?.replace(/\r$/, '')),
          content,
        )
      }),
      { numRuns: 50 },
    )
  })

  it('that are not UTF-8 or too long are told, the others read', async () => {
    await write(
      'd.jsonl',
      Buffer.concat([Buffer.from('{"a":1}\n{"b":"'), Buffer.from([0xff, 0x0a]), Buffer.from('[1]\n')]),
    )
    const found = await lines(path('d.jsonl'))
    assert.match(found[1]!.problem!, /UTF-8/)
    assert.deepEqual(
      found.map(({ text }) => text),
      ['{"a":1}', undefined, '[1]'],
    )
    await write('e.jsonl', `[1]\n${'x'.repeat(4 << 20)}\n[2]\n`)
    const short = await lines(path('e.jsonl'), 2 << 20)
    assert.match(short[1]!.problem!, /longer than 2 MiB/)
    assert.deepEqual(
      short.map(({ line, text }) => [line, text]),
      [
        [1, '[1]'],
        [2, undefined],
        [3, '[2]'],
      ],
    )
  })

  it('of UTF-16 files and missing files are refused', async () => {
    await write('f.jsonl', Buffer.from('\ufeff{"a":1}', 'utf16le'))
    await assert.rejects(lines(path('f.jsonl')), failure('ERR_DATA_FORMAT', 'UTF-16', 'f.jsonl'))
    await assert.rejects(lines(path('gone.jsonl')), failure('ERR_DATA_READ', 'gone.jsonl'))
  })
})

describe('data paths', () => {
  const { path, write } = temporaryFolder()
  before(async () => {
    await mkdir(path('deep/er'), { recursive: true })
    for (const name of [
      'b.jsonl',
      'a.jsonl',
      'c.json',
      '.hidden.jsonl',
      'deep/d.jsonl',
      'deep/er/e.jsonl',
      'x[1].jsonl',
      'q?.jsonl',
    ]) {
      await write(name, '')
    }
  })
  const resolve = async (...entries: string[]) =>
    (await resolveFiles(entries.map((entry) => ({ path: path(entry), format: 'auto' as const })))).map((file) =>
      file.path.slice(path('').length + 1),
    )

  it('are files in the given order, and globs sorted', async () => {
    assert.deepEqual(await resolve('b.jsonl', 'a.jsonl'), ['b.jsonl', 'a.jsonl'])
    assert.deepEqual(await resolve('*.jsonl'), ['a.jsonl', 'b.jsonl', 'q?.jsonl', 'x[1].jsonl'])
    assert.deepEqual(await resolve('?.jsonl'), ['a.jsonl', 'b.jsonl'])
    assert.deepEqual(await resolve('**/*.jsonl'), [
      'a.jsonl',
      'b.jsonl',
      'deep/d.jsonl',
      'deep/er/e.jsonl',
      'q?.jsonl',
      'x[1].jsonl',
    ])
    assert.deepEqual(await resolve('*/*.jsonl'), ['deep/d.jsonl'])
    assert.deepEqual(await resolve('deep/**/e.jsonl'), ['deep/er/e.jsonl'])
  })

  it('with signs of a glob in their names are themselves first', async () => {
    assert.deepEqual(await resolve('q?.jsonl'), ['q?.jsonl'])
    assert.deepEqual(await resolve('x[1].jsonl'), ['x[1].jsonl'])
  })

  it('that lead nowhere are refused with what is there', async () => {
    await assert.rejects(resolve('train.jsonl'), failure('ERR_DATA_NOT_FOUND', 'train.jsonl', 'a.jsonl, b.jsonl'))
    await assert.rejects(resolve('nowhere/train.jsonl'), failure('ERR_DATA_NOT_FOUND', 'nor does its folder'))
    await assert.rejects(resolve('z*.jsonl'), failure('ERR_DATA_NOT_FOUND', 'z*.jsonl'))
    await assert.rejects(resolve('deep'), failure('ERR_DATA_NOT_FOUND', 'folder', '*.jsonl'))
    await assert.rejects(resolve('c.json'), failure('ERR_DATA_FORMAT', 'c.json', '.json files are not read'))
  })
})

describe('rows', () => {
  const { path, write } = temporaryFolder()

  it('keep what the template may want and drop null padding', async () => {
    const call = { id: 'a', type: 'function', function: { name: 'f', arguments: { x: null } } }
    await write(
      'a.jsonl',
      jsonl({
        id: 7,
        messages: [
          {
            role: 'system',
            content: [
              { type: 'text', text: 'Be ' },
              { type: 'text', text: 'brief.' },
            ],
            name: null,
          },
          { role: 'user', content: 'Hi' },
          { role: 'assistant', content: null, tool_calls: [call], weight: 0.5 },
          { role: 'tool', content: '3', tool_call_id: 'a', name: 'f' },
          { role: 'assistant', content: 'Three', reasoning_content: 'hm', tool_calls: null },
        ],
        tools: [{ type: 'function', function: { name: 'f' } }],
      }),
    )
    const { all } = await rows(path('a.jsonl'))
    assert.deepEqual(all, [
      {
        messages: [
          { role: 'system', content: 'Be brief.' },
          { role: 'user', content: 'Hi' },
          { role: 'assistant', content: null, tool_calls: [call], weight: 0.5 },
          { role: 'tool', content: '3', tool_call_id: 'a', name: 'f' },
          { role: 'assistant', content: 'Three', reasoning_content: 'hm' },
        ],
        tools: [{ type: 'function', function: { name: 'f' } }],
        source: { file: path('a.jsonl'), line: 1 },
      },
    ])
  })

  it('may be plain text', async () => {
    await write('t.jsonl', jsonl({ text: 'Once.' }, { text: 'Twice.' }))
    const { all } = await rows(path('t.jsonl'))
    assert.deepEqual(all[1], { text: 'Twice.', source: { file: path('t.jsonl'), line: 2 } })
  })

  const user = { role: 'user', content: 'Hi' }
  const reply = { role: 'assistant', content: 'Hello' }
  const bad: [string, unknown, ...(string | RegExp)[]][] = [
    ['broken JSON', '{"messages": [}', 'column 15', 'where a value or ] was expected'],
    ['a list as a row', '[1]', 'expected an object, found a list'],
    ['neither messages nor text', { prompts: [] }, 'messages: expected a list', 'found nothing'],
    ['messages that are no list', { messages: 'Hi' }, 'messages: expected a list', 'found text'],
    ['no messages', { messages: [] }, 'messages: is an empty list'],
    [
      'a message that is no object',
      { messages: [user, 'Hello'] },
      'messages[1]: expected { role, content }, found text',
    ],
    ['no role', { messages: [{ content: 'Hi' }] }, 'messages[0].role: is missing'],
    ['ShareGPT keys in messages', { messages: [{ from: 'human', value: 'Hi' }] }, 'messages[0].role', 'ShareGPT'],
    [
      'an unknown role',
      { messages: [{ role: 'human', content: 'Hi' }] },
      'messages[0].role: unknown role "human"; write "user"',
    ],
    ['a role in capitals', { messages: [{ role: 'User', content: 'Hi' }] }, 'unknown role "User"; write "user"'],
    [
      'a role of its own',
      { messages: [{ role: 'narrator', content: 'Hi' }] },
      '"narrator"; expected one of system, user',
    ],
    ['no content', { messages: [{ role: 'user' }, reply] }, 'messages[0].content: is missing'],
    [
      'null content',
      { messages: [user, { role: 'assistant', content: null }] },
      'messages[1].content: is null',
      'tool_calls',
    ],
    [
      'empty assistant content',
      { messages: [user, { role: 'assistant', content: ' \n' }] },
      'messages[1].content: is empty',
    ],
    [
      'content of a wrong type',
      { messages: [{ role: 'user', content: 3 }] },
      'messages[0].content: expected text',
      'a number',
    ],
    [
      'a part that is an image',
      { messages: [{ role: 'user', content: [{ type: 'image' }] }] },
      'messages[0].content[0].type',
      '"image"',
    ],
    ['no assistant turn', { messages: [user] }, 'messages: has no assistant turn'],
    [
      'a negative weight',
      { messages: [user, { ...reply, weight: -1 }] },
      'messages[1].weight: expected a number from 0 up, found -1',
    ],
    ['a weight in quotes', { messages: [user, { ...reply, weight: '1' }] }, 'messages[1].weight', 'found "1"'],
    [
      'tool calls of a user',
      { messages: [{ ...user, tool_calls: [{ function: { name: 'f' } }] }, reply] },
      'messages[0].tool_calls: belongs to assistant',
    ],
    [
      'a tool call without function',
      { messages: [user, { role: 'assistant', tool_calls: [{ name: 'f' }] }] },
      'messages[1].tool_calls[0]: expected',
    ],
    [
      'a name that is no text',
      { messages: [{ ...user, name: 1 }, reply] },
      'messages[0].name: expected text, found a number',
    ],
    ['tools that are text', { messages: [user, reply], tools: '[]' }, 'tools: expected a list of objects, found text'],
    [
      'half a surrogate pair',
      `{"messages": [{"role": "user", "content": "a\\ud83d"}, {"role": "assistant", "content": "b"}]}`,
      'messages[0].content',
      '\\ud83d alone',
    ],
  ]
  for (const [what, row, ...parts] of bad) {
    it(`with ${what} are refused by file, line and field, or counted`, async () => {
      const file = await write('bad.jsonl', jsonl(exchange('a', 'b'), row, exchange('c', 'd')))
      await assert.rejects(rows(file), failure('ERR_BAD_ROW', `${file}:2: `, ...parts, 'data.onBadRow'))
      const { all, report } = await rows(file, 'skip')
      assert.deepEqual(
        all.map(({ source }) => source.line),
        [1, 3],
      )
      assert.deepEqual([report.rows, report.bad.count], [3, 1])
      assert.ok(report.bad.examples[0]!.startsWith(`${file}:2: `))
    })
  }

  it('that are bad say how many more are', async () => {
    const file = await write('many.jsonl', jsonl(exchange('a', 'b'), '{', '[]', exchange('a', 'b'), '3'))
    await assert.rejects(rows(file), failure('ERR_BAD_ROW', `${file}:2`, '2 more bad rows follow in this file'))
  })

  it('are missing from empty files and from files without a good row', async () => {
    const empty = await write('empty.jsonl', '\n  \n')
    await assert.rejects(rows(empty), failure('ERR_EMPTY_DATASET', empty, 'is empty'))
    const broken = await write('broken.jsonl', '{\n{\n')
    await assert.rejects(rows(broken, 'skip'), failure('ERR_EMPTY_DATASET', 'All 2 rows', `${broken}:1`))
    const good = await write('good.jsonl', jsonl(exchange('a', 'b')))
    const { report } = await rows([good, empty])
    assert.deepEqual(report.warnings, [{ code: 'WARN_EMPTY_FILE', message: `${empty} has no rows` }])
  })

  for (const [name, row] of Object.entries({
    ShareGPT: { conversations: [{ from: 'human', value: 'Hi' }] },
    Alpaca: { instruction: 'Do', input: '', output: 'Done' },
    'prompt/completion': { prompt: 'a', completion: 'b' },
    tokenised: { input_ids: [1, 2] },
  })) {
    it(`in the ${name} layout are refused by its name`, async () => {
      const file = await write('other.jsonl', jsonl(row))
      await assert.rejects(rows(file), failure('ERR_DATA_FORMAT', `${file}:1`, name))
    })
  }

  it('follow the given format instead of the detected one', async () => {
    const file = await write('both.jsonl', jsonl({ ...exchange('a', 'b'), text: 'c' }))
    assert.ok('text' in (await rows(file, 'error', 'text')).all[0]!)
    assert.ok('messages' in (await rows(file)).all[0]!)
    const texts = await write('texts.jsonl', jsonl({ text: 'c' }))
    await assert.rejects(rows(texts, 'error', 'messages'), failure('ERR_BAD_ROW', 'messages: expected a list'))
  })

  it('never crash the reader, whatever JSON they are', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.json(), { minLength: 1 }), async (content) => {
        const file = await write('fuzz.jsonl', jsonl(exchange('a', 'b'), ...content))
        const { all, report } = await rows(file, 'skip')
        assert.equal(all.length + report.bad.count, report.rows)
      }),
      { numRuns: 100 },
    )
  })

  it('may be nested without limit', async () => {
    const deep = `{"messages": ${'['.repeat(100_000)}${']'.repeat(100_000)}}`
    const tools = `{"messages": [{"role":"assistant","content":"a"}], "tools": [{"a": ${'['.repeat(50_000)}"x"${']'.repeat(50_000)}}]}`
    const file = await write('deep.jsonl', `${deep}\n${tools}\n`)
    const { report } = await rows(file, 'skip', 'messages')
    assert.equal(report.rows, 2)
    assert.equal(report.bad.count, 1)
  })
})
