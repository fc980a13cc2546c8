import assert from 'node:assert/strict'
import fc from 'fast-check'
import { exchange, failure, jsonl, rows, temporaryFolder } from './helpers.ts'

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
    ['the keys of no layout', { prompts: [] }, 'messages: expected a list', 'found nothing'],
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
    ['tools that are no list', { messages: [user, reply], tools: '{}' }, 'tools: expected a list of objects'],
    ['tools that are broken JSON', { messages: [user, reply], tools: '[{]' }, 'tools: is not valid JSON: column 3'],
    ['a row weight below 0', { messages: [user, reply], weight: -0.5 }, 'weight: expected a number from 0 up'],
    ['a weight beyond float32', { messages: [user, reply], weight: 1e39 }, 'weight: expected a number'],
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

  it('follow the given format instead of the detected one', async () => {
    const file = await write('both.jsonl', jsonl({ ...exchange('a', 'b'), text: 'c' }))
    assert.ok('text' in (await rows(file, 'error', 'text')).all[0]!)
    assert.ok('messages' in (await rows(file)).all[0]!)
    const texts = await write('texts.jsonl', jsonl({ text: 'c' }))
    await assert.rejects(
      rows(texts, 'error', 'messages'),
      failure('ERR_BAD_ROW', 'is plain text ("text"), but this file is read as messages'),
    )
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
