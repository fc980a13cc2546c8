import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { readParquet } from '../../lib/data/containers/parquet.ts'
import type { RawRow } from '../../lib/data/containers/raw-row.ts'
import type { TokenRow } from '../../lib/data/conversation.ts'
import { TunesmithError } from '../../lib/errors.ts'
import { failure, rows, temporaryFolder } from './helpers.ts'

// Written by pyarrow: scripts/python/make_data_golden.py.
const golden = (name: string) => fileURLToPath(new URL(`../golden/data/${name}`, import.meta.url))

async function read(path: string): Promise<RawRow[]> {
  const all: RawRow[] = []
  for await (const batch of readParquet(path)) all.push(...batch)
  return all
}

describe('Parquet', () => {
  const { path, write } = temporaryFolder()
  let expected: { messages: unknown[]; tools?: unknown[] }[]
  before(async () => {
    expected = JSON.parse(await readFile(golden('expected.json'), 'utf8'))
  })

  it('with a column that lost its path is refused', async () => {
    const bytes = await readFile(golden('brotli.parquet'))
    // The number of a field in the footer: hyparquet skips what it does not know.
    bytes[8464] = 0o47
    const damaged = await write('damaged.parquet', bytes)
    await assert.rejects(read(damaged), failure('ERR_DATA_READ', damaged, 'its footer is corrupt'))
  })

  for (const name of ['none', 'snappy', 'gzip', 'zstd', 'brotli', 'lz4']) {
    it(`of ${name} is plain JSON, without the nulls that pad structs`, async () => {
      assert.deepEqual(
        await read(golden(`${name}.parquet`)),
        expected.map((value, index) => ({ line: index + 1, value })),
      )
    })
  }

  it('of other types and encodings is what pyarrow wrote', async () => {
    type Row = Record<string, unknown>
    const types: Row[] = JSON.parse(await readFile(golden('types.json'), 'utf8'))
    const present = (row: Row, ...names: string[]) =>
      Object.fromEntries(
        Object.entries(row).filter(([key, value]) => value !== null && (names.length === 0 || names.includes(key))),
      )
    const values = async (name: string) => (await read(golden(name))).map(({ value }) => value)
    assert.deepEqual(
      await values('types.parquet'),
      types.map((row) => present(row)),
    )
    for (const name of ['delta.parquet', 'delta-v2.parquet', 'dictionary-v2.parquet'])
      assert.deepEqual(
        await values(name),
        types.map((row) => present(row, 'text', 'flag', 'small', 'big', 'real')),
        name,
      )
  })

  it('and JSONL in zstd hold the same conversations', async () => {
    const table = await rows(golden('zstd.parquet'))
    const lines = await rows(golden('rows.jsonl.zst'))
    const plain = ({ all }: typeof table) => all.map(({ source: _, ...row }) => row)
    assert.equal(table.all.length, 60)
    assert.deepEqual(plain(table), plain(lines))
    assert.deepEqual(table.all[59]!.source, { file: golden('zstd.parquet'), line: 60 })
  })

  it('keeps integers that a number holds, and looks at others only where they matter', async () => {
    assert.deepEqual(
      (await read(golden('ids.parquet'))).map(({ line, value, problem }) => [line, value, problem?.field]),
      [
        [1, undefined, 'extra[0]'],
        [2, { text: 'b', id: 7, extra: [1] }, undefined],
      ],
    )
    const { all } = await rows(golden('tokens.parquet'))
    assert.deepEqual(
      (all as TokenRow[]).map(({ ids, weights }) => [[...ids], [...weights!]]),
      [
        [
          [1, 2, 3],
          [0, 1, 1],
        ],
        [[4], [1]],
      ],
    )
  })

  it('that is cut short, damaged or something else is refused, never read in part', async () => {
    const whole = await readFile(golden('snappy.parquet'))
    for (const length of [6, 100, whole.length - 1]) {
      await write('cut.parquet', whole.subarray(0, length))
      await assert.rejects(rows(path('cut.parquet'), 'skip'), failure('ERR_DATA_READ', 'cut short'))
    }
    await write('text.parquet', '{"text": "a"}\n')
    await assert.rejects(rows(path('text.parquet')), failure('ERR_DATA_FORMAT', 'not Parquet'))
    await write('footer.parquet', Buffer.concat([whole.subarray(0, -30), Buffer.alloc(22, 0xff), whole.subarray(-8)]))
    await assert.rejects(rows(path('footer.parquet'), 'skip'), failure('ERR_DATA_READ', 'footer'))
    const damaged = Buffer.from(whole)
    damaged.fill(0xff, 200, 260)
    await write('damaged.parquet', damaged)
    await assert.rejects(
      rows(path('damaged.parquet'), 'skip'),
      failure('ERR_DATA_READ', 'row group 1 cannot be decoded'),
    )
    await assert.rejects(rows(path('gone.parquet')), failure('ERR_DATA_READ', 'gone.parquet'))
  })

  it('that claims endless runs of values is refused before the process runs out of room', async () => {
    const whole = await readFile(golden('tokens.parquet'))
    const reasons: string[] = []
    for (let at = 4; at < 240; at++) {
      const damaged = Buffer.from(whole)
      // A run of 2^31 - 1 equal values, wherever a run can start.
      damaged.set([0xfe, 0xff, 0xff, 0xff, 0x0f], at)
      await write('endless.parquet', damaged)
      try {
        await rows(path('endless.parquet'), 'skip')
      } catch (error) {
        assert.ok(error instanceof TunesmithError, `byte ${at}: ${error}`)
        reasons.push(error.message)
      }
    }
    assert.ok(reasons.length > 150, `${reasons.length}`)
    const runs = reasons.filter((reason) => /a run of 2147483647 values where \d+ are left/.test(reason))
    assert.ok(runs.length > 2, `${runs.length}`)
  })

  it('with any byte of its footer changed ends, in rows or in an error', async () => {
    const whole = await readFile(golden('tokens.parquet'))
    for (let at = whole.length - 8 - whole.readUInt32LE(whole.length - 8); at < whole.length - 8; at++) {
      const damaged = Buffer.from(whole)
      // As a number: -3. A negative number of children made the library look for the end of a loop.
      damaged[at] = 0x05
      await write('footer.parquet', damaged)
      await rows(path('footer.parquet'), 'skip').catch((error) =>
        assert.ok(error instanceof TunesmithError, `${at}: ${error}`),
      )
    }
  })
})
