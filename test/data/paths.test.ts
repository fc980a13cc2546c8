import assert from 'node:assert/strict'
import { mkdir } from 'node:fs/promises'
import { resolveFiles } from '../../lib/data/paths.ts'
import { failure, temporaryFolder } from './helpers.ts'

describe('data paths', () => {
  const { path, write } = temporaryFolder()
  before(async () => {
    await mkdir(path('deep/er'), { recursive: true })
    for (const name of [
      'b.jsonl',
      'a.jsonl',
      'c.txt',
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
    await assert.rejects(resolve('c.txt'), failure('ERR_DATA_FORMAT', 'c.txt', '.txt files are not read', '.parquet'))
  })
})
