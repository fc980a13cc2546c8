import assert from 'node:assert/strict'
import fc from 'fast-check'
import { readJson } from '../../lib/data/containers/json.ts'
import type { RawRow } from '../../lib/data/containers/raw-row.ts'
import { exchange, failure, rows, temporaryFolder } from './helpers.ts'

/** The rows of `text`, given in chunks of `size` bytes. */
async function read(text: string | Buffer, size = 1 << 20, longest?: number): Promise<RawRow[]> {
  const bytes = Buffer.from(text as string)
  async function* chunks() {
    for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
  }
  const all: RawRow[] = []
  for await (const batch of readJson(chunks(), 'x.json', longest)) all.push(...batch)
  return all
}

describe('JSON', () => {
  const { write } = temporaryFolder()

  it('is a list of rows, however it is written and wherever chunks end', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.jsonValue(), { maxLength: 6 }),
        fc.constantFrom(0, 1, 4),
        fc.integer({ min: 1, max: 40 }),
        fc.constantFrom('list', 'data'),
        async (values, indent, size, form) => {
          const file = form === 'list' ? values : { version: '[1', meta: { data: [{}] }, data: values, end: null }
          const found = await read(JSON.stringify(file, null, indent), size)
          assert.deepEqual(
            found,
            values.map((value, index) => ({ line: index + 1, value: JSON.parse(JSON.stringify(value)) })),
          )
        },
      ),
      { numRuns: 150 },
    )
  })

  it('tells a broken row by its number and goes on with the next', async () => {
    const found = await read('[{"a":1},\n {"a":1,}, {"b":"\\x"}, tru, {"c":2}]', 3)
    assert.deepEqual(
      found.map(({ line, value, problem }) => [line, value, problem?.message]),
      [
        [1, { a: 1 }, undefined],
        [2, undefined, 'is not valid JSON: column 8: found "}" where a quoted key was expected'],
        [3, undefined, 'is not valid JSON: column 7: bad escape "\\\\x" in a string'],
        [4, undefined, 'is not valid JSON: column 1: found "tru" where a value was expected'],
        [5, { c: 2 }, undefined],
      ],
    )
    const bytes = Buffer.from('[{"a":"?"},{"b":1}]')
    bytes[7] = 0xff
    assert.match((await read(bytes))[0]!.problem!.message, /UTF-8/)
  })

  it('with a row that is too long reads the others', async () => {
    const found = await read(`[1, "${'x'.repeat(3000)}", {"a": 2}]`, 100, 1024)
    assert.deepEqual(
      found.map(({ line, value, problem }) => [line, value, problem !== undefined]),
      [
        [1, 1, false],
        [2, undefined, true],
        [3, { a: 2 }, false],
      ],
    )
  })

  it('of one object per line is read as the lines that it is', async () => {
    assert.deepEqual(await read('{"a":1}\n\n{"a":2}\n'), [
      { line: 1, value: { a: 1 } },
      { line: 2, value: { a: 2 } },
    ])
    assert.deepEqual(await read('{"data":[1,2]}\n'), [
      { line: 1, value: 1 },
      { line: 2, value: 2 },
    ])
  })

  const broken: [string, string, ...(string | RegExp)[]][] = [
    ['cut short in a row', '[{"a":1},{"a":', 'ends in row 2 before it is closed'],
    ['cut short after a row', '[{"a":1}', 'ends after row 1 before it is closed'],
    ['with a bracket that does not fit', '[{"a":1},\n{"a":[1}]', 'has } where ] was expected, on line 2 (row 2)'],
    ['without a comma', '[{"a":1} {"a":2}]', 'has { where , or ] was expected'],
    ['with a comma too many', '[{"a":1},]', 'has ] where a row was expected'],
    ['that goes on after its end', '[1] x', 'has x where the end of the file was expected'],
    ['that is no list', '"text"', 'starts with "'],
    ['that is an object without rows', '{\n"rows": [1]}', 'is an object without a list "data"'],
    ['with rows that are no list', '{\n"data": {"a": [1]}}', 'is an object without a list "data"'],
    ['with rows twice', '{"data": [1],\n"data": [2]}', 'has "data" twice'],
    ['with a key without quotes', '{\ndata: [1]}', 'has d where a quoted key was expected, on line 2'],
  ]
  for (const [what, text, ...parts] of broken) {
    for (const size of [1, 1000]) {
      it(`${what} is refused, in chunks of ${size}`, async () => {
        await assert.rejects(read(text, size), failure('ERR_DATA_FORMAT', 'x.json', ...parts))
      })
    }
  }

  it('without rows is empty', async () => {
    assert.deepEqual(await read(' [ ] '), [])
    assert.deepEqual(await read(''), [])
    assert.deepEqual(await read('{"data": []}'), [])
    await assert.rejects(rows(await write('empty.json', '[]')), failure('ERR_EMPTY_DATASET', 'is empty'))
  })

  it('names rows by number, since no editor shows it as a line', async () => {
    const file = await write('a.json', JSON.stringify([exchange('a', 'b'), { messages: [] }], null, 2))
    await assert.rejects(rows(file), failure('ERR_BAD_ROW', `${file} row 2: messages: is an empty list`))
  })
})
