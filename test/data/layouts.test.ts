import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import type { Conversation, TokenRow } from '../../lib/data/conversation.ts'
import { detectLayout } from '../../lib/data/layouts/index.ts'
import { describeShared, shared } from '../shared.ts'
import { exchange, failure, jsonl, rows, temporaryFolder } from './helpers.ts'

const question = { from: 'human', value: 'Hi' }
const answer = { from: 'gpt', value: 'Hello' }

const question0 = { role: 'user', content: 'q' }

describe('layouts', () => {
  const { path, write } = temporaryFolder()
  /** The one row of a file, without its source. */
  const convert = async (row: unknown) => {
    const file = await write('one.jsonl', jsonl(row))
    const { source, ...rest } = (await rows(file)).all[0]!
    assert.deepEqual(source, { file, line: 1 })
    return rest
  }

  it('of ShareGPT become messages, with system, tools, calls and observations', async () => {
    assert.deepEqual(
      await convert({
        system: 'Be brief.',
        conversations: [
          { from: 'human', value: 'Rome?', markdown: null },
          { from: 'function_call', value: '{"name": "weather", "arguments": {"city": "Rome"}}' },
          { from: 'observation', value: '{"t": 20}' },
          { from: 'gpt', value: '20 °C', weight: 0.5 },
          { from: 'user', value: 'Both?' },
          { from: 'function_call', value: '[{"name": "a", "arguments": {}}, {"name": "b", "arguments": "{}"}]' },
          { from: 'tool', value: '1' },
          { from: 'function_response', value: '2' },
          { from: 'chatgpt', value: 'Yes' },
        ],
        tools: '[{"name": "weather", "parameters": {}}, {"type": "function", "function": {"name": "a"}}]',
        weight: 2,
      }),
      {
        messages: [
          { role: 'system', content: 'Be brief.' },
          { role: 'user', content: 'Rome?' },
          {
            role: 'assistant',
            content: null,
            tool_calls: [{ type: 'function', function: { name: 'weather', arguments: { city: 'Rome' } } }],
          },
          { role: 'tool', content: '{"t": 20}' },
          { role: 'assistant', content: '20 °C', weight: 0.5 },
          { role: 'user', content: 'Both?' },
          {
            role: 'assistant',
            content: null,
            tool_calls: [
              { type: 'function', function: { name: 'a', arguments: {} } },
              { type: 'function', function: { name: 'b', arguments: '{}' } },
            ],
          },
          { role: 'tool', content: '1' },
          { role: 'tool', content: '2' },
          { role: 'assistant', content: 'Yes' },
        ],
        tools: [
          { type: 'function', function: { name: 'weather', parameters: {} } },
          { type: 'function', function: { name: 'a' } },
        ],
        weight: 2,
      },
    )
  })

  it('of conversations may have roles and contents, and no tools', async () => {
    const { messages } = exchange('Hi', 'Hello')
    assert.deepEqual(await convert({ conversations: messages, tools: '[]', system: ' ' }), { messages })
    assert.deepEqual(await convert({ conversations: [question, answer], tools: '' }), { messages })
  })

  it('of Alpaca put the input under the instruction, after system and history', async () => {
    assert.deepEqual(await convert({ instruction: 'Add', input: '1 2', output: '3', system: '', history: null }), {
      messages: exchange('Add\n1 2', '3').messages,
    })
    assert.deepEqual(
      await convert({ instruction: 'And 3?', input: ' ', output: '6', system: 'Add.', history: [['1 2', '3']] }),
      {
        messages: [
          { role: 'system', content: 'Add.' },
          ...exchange('1 2', '3').messages,
          ...exchange('And 3?', '6').messages,
        ],
      },
    )
  })

  it('tell what each of the first rows shows, and what is left aside', async () => {
    const evidence = (...shown: unknown[]) => detectLayout(shown)!.evidence
    const ids = [1, 2]
    assert.equal(
      evidence({ input_ids: ids, labels: ids }, { input_ids: ids, weights: [0, 1] }),
      'the first 2 rows have "input_ids" with "labels" or "input_ids" with "weights": tokenised',
    )
    assert.equal(
      evidence({ instruction: 'a', output: 'b', chosen: 'b', rejected: 'c' }),
      'the first row has "instruction" and "output": Alpaca; "chosen" and "rejected" are left aside',
    )
  })

  it('of messages have arguments of calls that are objects, or JSON text of one', async () => {
    const call = (given: unknown) => ({
      messages: [
        question0,
        {
          role: 'assistant',
          content: null,
          tool_calls: [{ type: 'function', function: { name: 'f', arguments: given } }],
        },
      ],
    })
    for (const given of ['{"a": 1}', '{}', { a: 1 }, {}, undefined]) await convert(call(given))
    const wrong: [unknown, RegExp][] = [
      ['{bad json', /arguments.*is not valid JSON: column 2/],
      ['', /is not valid JSON/],
      ['[1]', /expected an object or JSON text of one, found a list/],
      [7, /found a number/],
    ]
    for (const [given, message] of wrong)
      await assert.rejects(
        convert(call(given)),
        failure('ERR_BAD_ROW', /messages\[1\]\.tool_calls\[0\]\.function\.arguments/, message),
      )
  })

  it('of prompt and completion as text are one text whose first part is the prompt', async () => {
    assert.deepEqual(await convert({ prompt: 'Q: 😀?', completion: ' A', weight: 0.5 }), {
      text: 'Q: 😀? A',
      promptLength: 6,
      weight: 0.5,
    })
    assert.deepEqual(await convert({ prompt: '', completion: 'A' }), { text: 'A', promptLength: 0 })
  })

  it('of prompt and completion as messages are one conversation, trained on the completion', async () => {
    const tools = [{ type: 'function', function: { name: 'f' } }]
    assert.deepEqual(
      await convert({
        prompt: [...exchange('a', 'b').messages, { role: 'user', content: 'c' }],
        completion: [{ role: 'assistant', content: 'd' }],
        tools,
      }),
      {
        messages: [
          { role: 'user', content: 'a' },
          { role: 'assistant', content: 'b', weight: 0 },
          { role: 'user', content: 'c' },
          { role: 'assistant', content: 'd' },
        ],
        tools,
      },
    )
  })

  it('of tokens have weights from labels, from weights, or none', async () => {
    const plain = async (row: unknown) => {
      const { ids, weights, ...rest } = (await convert(row)) as TokenRow
      return { ids: [...ids], ...(weights && { weights: [...weights] }), ...rest }
    }
    assert.deepEqual(await plain({ input_ids: [5, 6, 7], labels: [-100, 6, -100], attention_mask: [1, 1, 1] }), {
      ids: [5, 6, 7],
      weights: [0, 1, 0],
    })
    assert.deepEqual(await plain({ input_ids: [5, 6], weights: [0, 0.25], labels: null }), {
      ids: [5, 6],
      weights: [0, 0.25],
    })
    assert.deepEqual(await plain({ input_ids: [5, 6], weight: 3 }), { ids: [5, 6], weight: 3 })
  })

  const bad: [string, unknown, ...string[]][] = [
    [
      'a speaker unknown',
      { conversations: [{ from: 'narrator', value: 'x' }, answer] },
      'conversations[0].from',
      'human',
    ],
    [
      'a speaker named like a method',
      { conversations: [{ from: 'toString', value: 'x' }] },
      'unknown speaker "toString"',
    ],
    ['a speaker missing', { conversations: [{ value: 'x' }, answer] }, 'conversations[0].from: is missing'],
    [
      'a value missing',
      { conversations: [{ from: 'human' }, answer] },
      'conversations[0].value: expected text, found nothing',
    ],
    ['no answer', { conversations: [question] }, 'conversations: has no assistant turn'],
    ['an empty answer', { conversations: [question, { from: 'gpt', value: ' ' }] }, 'conversations[1].value: is empty'],
    [
      'a call that is no JSON',
      { conversations: [question, { from: 'function_call', value: 'weather(Rome)' }] },
      'conversations[1].value: is not valid JSON: column 1',
    ],
    [
      'a call without arguments',
      { conversations: [question, { from: 'function_call', value: '{"name": "a"}' }] },
      'conversations[1].value: expected JSON of { name, arguments }',
    ],
    [
      'a system text of a wrong type',
      { conversations: [question, answer], system: ['a'] },
      'system: expected text, found a list',
    ],
    [
      'both pairs of keys',
      { conversations: [{ ...question, role: 'user' }, answer] },
      'conversations[0]: has "from" and "role"',
    ],
    [
      'two system texts',
      { conversations: [{ from: 'system', value: 'a' }, question, answer], system: 'b' },
      'system: is given here and as the first turn',
    ],
    ['an instruction of a wrong type', { instruction: 1, output: 'b' }, 'instruction: expected text, found a number'],
    ['an empty output', { instruction: 'a', output: '' }, 'output: is empty'],
    ['an input of a wrong type', { instruction: 'a', output: 'b', input: {} }, 'input: expected text, found an object'],
    [
      'history that is no pair',
      { instruction: 'a', output: 'b', history: [['q']] },
      'history[0]: expected [question, answer], found a list of 1',
    ],
    [
      'a half prompt of messages',
      { prompt: 'a', completion: exchange('a', 'b').messages },
      'prompt: expected a list of messages',
    ],
    [
      'a half completion',
      { prompt: [{ role: 'user', content: 'a' }], completion: 'b' },
      'completion: expected a list of messages',
    ],
    [
      'a completion without assistant',
      { prompt: exchange('a', 'b').messages, completion: [{ role: 'user', content: 'b' }] },
      'completion: has no assistant turn',
    ],
    [
      'a weighted prompt',
      { prompt: [{ role: 'assistant', content: 'a', weight: 1 }], completion: exchange('a', 'b').messages },
      'prompt: has a turn with a weight',
    ],
    ['tools without a template', { prompt: 'a', completion: 'b', tools: [] }, 'tools: need a chat template'],
    ['an empty completion', { prompt: 'a', completion: '' }, 'completion: is empty'],
    ['ids below 0', { input_ids: [1, -1] }, 'input_ids[1]: expected a token id', 'found -1'],
    ['ids that are fractions', { input_ids: [1.5] }, 'input_ids[0]'],
    ['ids that are text', { input_ids: [1, '2'] }, 'input_ids[1]: expected a number, found "2"'],
    ['labels too few', { input_ids: [1, 2], labels: [1] }, 'labels: has 1 entries, but input_ids has 2'],
    [
      'labels that are shifted',
      { input_ids: [1, 2, 3], labels: [2, 3, -100] },
      'labels[0]: is 2, but input_ids[0] is 1',
    ],
    ['labels and weights', { input_ids: [1], labels: [1], weights: [1] }, 'weights: is given beside "labels"'],
    ['a weight below 0', { input_ids: [1], weights: [-1] }, 'weights[0]: expected a number from 0 up'],
    ['padding', { input_ids: [1, 2], labels: [1, -100], attention_mask: [1, 0] }, 'attention_mask[1]: is 0: padding'],
    [
      'a foreign mask',
      { input_ids: [1], assistant_masks: [1] },
      'assistant_masks: is not read; rename it to "weights"',
    ],
  ]
  for (const [what, row, ...parts] of bad) {
    it(`with ${what} are refused by field`, async () => {
      const file = await write('bad.jsonl', jsonl(row))
      await assert.rejects(rows(file), failure('ERR_BAD_ROW', `${file}:1: `, ...parts))
    })
  }

  it('are told from the first rows, with the evidence', async () => {
    const evidence = async (...content: unknown[]) => {
      const { report } = await rows(await write('told.jsonl', jsonl(...content)), 'skip')
      assert.equal(report.formats.length, 1)
      return `${report.formats[0]!.format} - ${report.formats[0]!.evidence}`
    }
    const { messages } = exchange('a', 'b')
    const share = { conversations: [question, answer] }
    assert.equal(
      await evidence({ messages, text: 'x', prompt: 'y' }),
      'messages - the first row has "messages": messages',
    )
    assert.equal(
      await evidence(share, share),
      'sharegpt - the first 2 rows have "conversations" with "from" and "value": ShareGPT',
    )
    assert.equal(
      await evidence({ messages }, share, share),
      'sharegpt - 2 of the first 3 rows have "conversations" with "from" and "value": ShareGPT',
    )
    assert.equal(
      await evidence({ instruction: 'a', input: '', output: 'b', text: 'c' }),
      'alpaca - the first row has "instruction", "input" and "output": Alpaca',
    )
    assert.equal(
      await evidence({ prompt: 'a', completion: 'b' }),
      'prompt-completion - the first row has "prompt" and "completion" as text: prompt/completion',
    )
    assert.equal(
      await evidence({ input_ids: [1], labels: [1], text: 'x' }),
      'tokens - the first row has "input_ids" with "labels": tokenised',
    )
    assert.equal(await evidence('{', { text: 'x' }), 'text - the first row has "text": plain text')
    assert.equal(detectLayout([{ instruction: 'a', response: 'b' }, 3]), undefined)
  })

  it('that are mixed in a file are bad rows', async () => {
    const { messages } = exchange('a', 'b')
    const file = await write('mixed.jsonl', jsonl({ messages }, { text: 'x' }, { messages }))
    const odd = `${file}:2: is plain text ("text"), but this file is read as messages`
    await assert.rejects(rows(file), failure('ERR_BAD_ROW', odd))
    const { all, report } = await rows(file, 'skip')
    assert.deepEqual([all.length, report.rows, report.bad.examples], [2, 3, [odd]])
  })

  it('that are none name what was found, and preference data is refused', async () => {
    const file = await write('none.jsonl', jsonl({ instruction: 'a', response: 'b' }))
    await assert.rejects(
      rows(file),
      failure('ERR_BAD_ROW', `${file}:1: has the keys of no layout`, 'Found "instruction", "response"'),
    )
    await write('preference.jsonl', jsonl({ prompt: 'a', chosen: 'b', rejected: 'c' }))
    await assert.rejects(rows(path('preference.jsonl'), 'skip'), failure('ERR_DATA_FORMAT', 'preference data'))
  })

  it('may differ from file to file', async () => {
    const first = await write('first.jsonl', jsonl({ conversations: [question, answer] }))
    const second = await write('second.jsonl', jsonl({ instruction: 'Hi', output: 'Hello' }))
    const { all, report } = await rows([first, second])
    assert.deepEqual((all[0] as Conversation).messages, (all[1] as Conversation).messages)
    assert.deepEqual(
      report.formats.map(({ file, format }) => [file, format]),
      [
        [first, 'sharegpt'],
        [second, 'alpaca'],
      ],
    )
  })
})

describeShared('layouts of real data', () => {
  it('ShareGPT tool calls equal their conversion to messages, row by row', async () => {
    const { all } = await rows(shared('data/tool-calling/glaive_toolcall_en_demo.json'))
    const lines = (await readFile(shared('data/tool-calling/glaive_toolcall_en_demo.messages.jsonl'), 'utf8')).trim()
    // There an empty list of tools stays one; here it means none.
    const none = (row: { tools: unknown[] }) => (row.tools.length === 0 ? { ...row, tools: undefined } : row)
    const expected = lines.split('\n').map((line) => JSON.parse(JSON.stringify(none(JSON.parse(line)))))
    assert.equal(all.length, 300)
    assert.deepEqual(
      all.map(({ source: _, ...row }) => row),
      expected,
    )
  })

  it('every file of ../shared/data is read whole', async () => {
    const count = async (file: string) => (await rows(shared(`data/${file}`))).all.length
    assert.equal(await count('multi-turn/fastchat_dummy_conversation.json'), 500)
    assert.equal(await count('alpaca/alpaca_en_demo.json'), 999)
    assert.equal(await count('alpaca/rasbt-instruction-data-1100.json'), 1100)
    assert.equal(await count('dolly-15k/dolly-15k-messages.jsonl'), 15015)
    assert.equal(await count('preference/rasbt-instruction-data-with-preference.json'), 1100)
    await assert.rejects(count('preference/dpo_en_demo.json'), failure('ERR_DATA_FORMAT', 'row 1', 'preference data'))
  })
})
