import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { expandDataFiles } from '../../lib/trainer/data-files.ts'

describe('globs among the data files', () => {
  let folder: string

  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'tunesmith-'))
    for (const path of ['a', 'a/b', 'a/b/c', '.hidden']) mkdirSync(join(folder, path))
    for (const path of ['2.jsonl', '10.jsonl', 'x.json', '.dot.jsonl', 'a/3.jsonl', 'a/b/4.jsonl', 'a/b/c/5.jsonl'])
      writeFileSync(join(folder, path), '')
    writeFileSync(join(folder, '.hidden/6.jsonl'), '')
    writeFileSync(join(folder, 'star*.jsonl'), '')
  })
  after(() => rmSync(folder, { recursive: true }))

  const expand = async (...patterns: string[]) => {
    const files = patterns.map((path) => ({ path: join(folder, path), format: 'text' as const }))
    const found = await expandDataFiles(files)
    assert.ok(found.every((file) => file.format === 'text'))
    return found.map((file) => relative(folder, file.path))
  }

  it('match names in their order, without hidden files', async () => {
    assert.deepEqual(await expand('*.jsonl'), ['10.jsonl', '2.jsonl', 'star*.jsonl'])
    assert.deepEqual(await expand('?.json*'), ['2.jsonl', 'x.json'])
    assert.deepEqual(await expand('a/*.jsonl'), ['a/3.jsonl'])
    assert.deepEqual(await expand('*/b/?.jsonl'), ['a/b/4.jsonl'])
  })

  it('match any number of folders with **', async () => {
    assert.deepEqual(await expand('a/**/*.jsonl'), ['a/3.jsonl', 'a/b/4.jsonl', 'a/b/c/5.jsonl'])
    assert.deepEqual(await expand('**/c/*'), ['a/b/c/5.jsonl'])
    assert.deepEqual(await expand('**/**/5.jsonl'), ['a/b/c/5.jsonl'])
  })

  it('leave plain paths alone, whether they exist or not, and name no file twice', async () => {
    assert.deepEqual(await expand('missing.jsonl', 'x.json', '*.json'), ['missing.jsonl', 'x.json'])
  })

  it('read a path that exists as itself', async () => {
    assert.deepEqual(await expand('star*.jsonl'), ['star*.jsonl'])
  })

  it('are refused when they match nothing', async () => {
    await assert.rejects(expand('*.parquet'), { code: 'ERR_DATA_NOT_FOUND', message: /no file matches .*\*\.parquet/ })
  })
})
