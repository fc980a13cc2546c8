import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { readCsv } from '../../lib/data/containers/csv.ts'
import type { RawRow } from '../../lib/data/containers/raw-row.ts'
import type { Conversation } from '../../lib/data/conversation.ts'
import { exchange, failure, rows, temporaryFolder } from './helpers.ts'

async function read(text: string | Buffer, size = 1 << 20): Promise<RawRow[]> {
  const bytes = Buffer.from(text as string)
  async function* chunks() {
    for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
  }
  const all: RawRow[] = []
  for await (const batch of readCsv(chunks(), 'x.csv')) all.push(...batch)
  return all
}

const quoted = (cell: string) => `"${cell.replaceAll('"', '""')}"`

describe('CSV', () => {
  const { write } = temporaryFolder()

  it('comes back as it was written, numbered by the line where a record starts', async () => {
    const cell = fc.string({ unit: fc.constantFrom('a', '"', ',', '\n', '\r\n', ' ', 'é', '😀'), minLength: 1 })
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(cell, cell), { minLength: 1 }),
        fc.constantFrom('\n', '\r\n'),
        fc.integer({ min: 1, max: 30 }),
        async (records, end, size) => {
          const text = [['a', 'b'], ...records].map((cells) => cells.map(quoted).join(',') + end).join('')
          let line = 2
          const expected = records.map(([a, b]) => {
            const row = { line, value: { a, b } }
            line += 1 + (a + b).split('\n').length - 1
            return row
          })
          assert.deepEqual(await read(text, size), expected)
        },
      ),
      { numRuns: 50 },
    )
  })

  it('leaves out empty cells and blank lines', async () => {
    assert.deepEqual(await read('instruction,input,output\n\nAdd,,3\n\r\nSub,"",1'), [
      { line: 3, value: { instruction: 'Add', output: '3' } },
      { line: 5, value: { instruction: 'Sub', output: '1' } },
    ])
  })

  it('tells records with a number of cells of their own, bytes that are not UTF-8 and stray quotes', async () => {
    const found = await read(Buffer.from('a,b\n1\n1,2\n1,2,3\n1,2"3\n\xff,2\n5,6\n', 'latin1'), 4)
    assert.deepEqual(
      found.map(({ line, problem }) => [line, problem?.message.slice(0, 28)]),
      [
        [2, 'has 1 cells, but the header '],
        [3, undefined],
        [4, 'has 3 cells, but the header '],
        [5, 'has a quote inside an unquot'],
        [6, 'is not valid UTF-8; save the'],
        [7, undefined],
      ],
    )
  })

  for (const size of [1, 1000]) {
    it(`is refused where a quote leaves records open, in chunks of ${size}`, async () => {
      await assert.rejects(
        read('a,b\n1,2\n1,"2\n3,4\n', size),
        failure('ERR_DATA_FORMAT', 'x.csv:3: a quote that is opened'),
      )
      await assert.rejects(read('a,b\n1,2\n1,"2"3\n3,4\n', size), failure('ERR_DATA_FORMAT', 'x.csv:3: text follows'))
    })
  }

  it('is refused with a column twice, and without a header', async () => {
    await assert.rejects(read('a,b,a\n1,2,3\n'), failure('ERR_DATA_FORMAT', 'the column "a" twice'))
    const file = await write('bare.csv', 'Hi,Hello\nHow,Well\n')
    await assert.rejects(
      rows(file),
      failure('ERR_BAD_ROW', `${file}:2: has the keys of no layout`, 'Found "Hi", "Hello"'),
    )
  })

  it('tells another separator', async () => {
    for (const [separator, name] of [
      [';', '";"'],
      ['\t', 'tabs'],
    ] as const) {
      const file = await write('other.csv', `prompt${separator}completion\na${separator}b\n`)
      await assert.rejects(rows(file), failure('ERR_BAD_ROW', `separated by commas, not by ${name}`))
    }
  })

  it('holds lists and objects as JSON in its cells', async () => {
    const { messages } = exchange('a "b", c', 'd')
    const tools = [{ type: 'function', function: { name: 'f' } }]
    const file = await write(
      'chat.csv',
      `id,messages,tools,weight\n1,${quoted(JSON.stringify(messages))},${quoted(JSON.stringify(tools))},0.5\n`,
    )
    assert.deepEqual((await rows(file)).all, [{ messages, tools, weight: 0.5, source: { file, line: 2 } }])
    const prompts = await write(
      'prompt.csv',
      `prompt,completion\n${quoted(JSON.stringify(messages.slice(0, 1)))},${quoted(JSON.stringify(messages.slice(1)))}\n[1] a,b\n`,
    )
    const { all, report } = await rows(prompts)
    assert.match(report.formats[0]!.evidence, /"prompt" and "completion" as messages: prompt\/completion$/)
    assert.deepEqual((all[0] as Conversation).messages, messages)
    assert.deepEqual(all[1], { text: '[1] ab', promptLength: 5, source: { file: prompts, line: 3 } })
    const tokens = await write('tokens.csv', 'input_ids,labels\n"[5, 6]","[-100, 6]"\n')
    assert.deepEqual((await rows(tokens)).all, [
      { ids: Int32Array.of(5, 6), weights: Float32Array.of(0, 1), source: { file: tokens, line: 2 } },
    ])
  })

  it('of Python holds the same conversations as its JSONL', async () => {
    const golden = (name: string) => fileURLToPath(new URL(`../golden/data/${name}`, import.meta.url))
    const table = await rows(golden('rows.csv'))
    const lines = await rows(golden('rows.jsonl.zst'))
    const plain = ({ all }: typeof table) => all.map(({ source: _, ...row }) => row)
    assert.equal(table.all.length, 60)
    assert.deepEqual(plain(table), plain(lines))
    const text = await readFile(golden('rows.csv'), 'utf8')
    for (const { source } of table.all.slice(1, 9)) {
      const before = text
        .split('\n')
        .slice(0, source.line - 1)
        .join('\n')
      assert.equal(before.split('"').length % 2, 1, `line ${source.line} starts inside a quote`)
    }
  })

  it('whose cells are broken JSON or Python are bad rows', async () => {
    const python = await write('python.csv', `messages\n"[{'role': 'user', 'content': 'a'}]"\n`)
    await assert.rejects(
      rows(python),
      failure('ERR_BAD_ROW', `${python}:2: messages: is written as Python`, 'json.dumps'),
    )
    const cut = await write('cut.csv', 'messages\n"[{"\n')
    await assert.rejects(rows(cut), failure('ERR_BAD_ROW', `${cut}:2: messages: is not valid JSON: column 3`))
  })
})
