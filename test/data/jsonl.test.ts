import assert from 'node:assert/strict'
import fc from 'fast-check'
import { readText } from '../../lib/data/containers/bytes.ts'
import { readJsonLines } from '../../lib/data/containers/jsonl.ts'
import type { RawRow } from '../../lib/data/containers/raw-row.ts'
import { exchange, failure, rows, temporaryFolder } from './helpers.ts'

async function lines(path: string, longest?: number): Promise<RawRow[]> {
  const all: RawRow[] = []
  for await (const batch of readJsonLines(readText(path), longest)) all.push(...batch)
  return all
}

describe('JSONL', () => {
  const { path, write } = temporaryFolder()

  it('is one row per line, numbered from 1, blank ones counted but left out', async () => {
    await write('a.jsonl', '\ufeff{"a":1}\r\n\r\n   \n{"b":"é😀"}\n\n[3]')
    assert.deepEqual(await lines(path('a.jsonl')), [
      { line: 1, value: { a: 1 } },
      { line: 4, value: { b: 'é😀' } },
      { line: 6, value: [3] },
    ])
  })

  it('may have lines of any length that fall anywhere on the chunks that are read', async () => {
    const sizes = [1 << 20, (1 << 20) - 1, 3 << 20, 1, 5]
    await write('b.jsonl', sizes.map((size) => `"${'é'.repeat(size)}"`).join('\n'))
    assert.deepEqual(
      (await lines(path('b.jsonl'))).map(({ value }) => (value as string).length),
      sizes,
    )
  })

  it('comes back as it was written', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.jsonValue()), fc.constantFrom('\n', '\r\n'), async (content, end) => {
        await write('c.jsonl', content.map((value) => JSON.stringify(value)).join(end))
        assert.deepEqual(
          (await lines(path('c.jsonl'))).map(({ value }) => value),
          content.map((value) => JSON.parse(JSON.stringify(value))),
        )
      }),
      { numRuns: 50 },
    )
  })

  it('tells lines that are broken, not UTF-8 or too long, and reads the others', async () => {
    await write(
      'd.jsonl',
      Buffer.concat([Buffer.from('{"a":1}\n{"b":"'), Buffer.from([0xff, 0x0a]), Buffer.from('[1]\n[2,]')]),
    )
    const found = await lines(path('d.jsonl'))
    assert.match(found[1]!.problem!.message, /UTF-8/)
    assert.match(found[3]!.problem!.message, /is not valid JSON: column 4: found "]"/)
    assert.deepEqual(
      found.map(({ value }) => value),
      [{ a: 1 }, undefined, [1], undefined],
    )
    await write('e.jsonl', `[1]\n${'x'.repeat(4 << 20)}\n[2]\n`)
    const short = await lines(path('e.jsonl'), 2 << 20)
    assert.match(short[1]!.problem!.message, /longer than 2 MiB/)
    assert.deepEqual(
      short.map(({ line, value }) => [line, value]),
      [
        [1, [1]],
        [2, undefined],
        [3, [2]],
      ],
    )
  })

  it('is told from one JSON document over several lines', async () => {
    for (const text of [
      JSON.stringify([exchange('a', 'b')], null, 2),
      `\n${JSON.stringify(exchange('a', 'b'), null, 2)}\n`,
    ]) {
      const file = await write('pretty.jsonl', text)
      await assert.rejects(
        rows(file),
        failure('ERR_BAD_ROW', 'over several lines and not JSONL; rename the file to .json'),
      )
    }
  })

  it('of UTF-16 files and missing files is refused', async () => {
    await write('f.jsonl', Buffer.from('\ufeff{"a":1}', 'utf16le'))
    await assert.rejects(lines(path('f.jsonl')), failure('ERR_DATA_FORMAT', 'UTF-16', 'f.jsonl'))
    await assert.rejects(lines(path('gone.jsonl')), failure('ERR_DATA_READ', 'gone.jsonl'))
  })
})
