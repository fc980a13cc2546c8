import assert from 'node:assert/strict'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { checkReader } from '../../scripts/fuzz/check-reader.ts'
import { nextInput } from '../../scripts/fuzz/reader-inputs.ts'
import { Random } from '../../scripts/random.ts'

// The long runs are scripts/fuzz/readers.ts; here a few hundred inputs keep it working.
describe('readers under damaged and hostile files', () => {
  let folder: string
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tunesmith-fuzz-'))
  })
  after(async () => rm(folder, { recursive: true, force: true }))

  it('give rows or one clear error, and count every row', async () => {
    const golden = fileURLToPath(new URL('../golden/data/', import.meta.url))
    const names = (await readdir(golden)).filter((name) => /\.(parquet|zst)$/.test(name))
    const seeds = await Promise.all(names.map(async (name) => ({ name, content: await readFile(join(golden, name)) })))
    const random = new Random(7)
    const outcomes = { read: 0, refused: 0 }
    for (let i = 0; i < 250; i++) outcomes[await checkReader(nextInput(random, seeds), folder)]++
    assert.ok(outcomes.read > 80 && outcomes.refused > 40, JSON.stringify(outcomes))
  })

  it('are held to that: a lost row and a whole file that is refused fail the check', async () => {
    const text = '{"text": "a"}\n{"text": "b"}\n'
    const input = { name: 'a.jsonl', content: Buffer.from(text), format: 'auto' as const }
    assert.equal(await checkReader({ ...input, rows: 2 }, folder), 'read')
    await assert.rejects(checkReader({ ...input, rows: 3 }, folder), /has 3 rows, but 2 were found/)
    const cut = { name: 'a.json', content: Buffer.from('[{"text": "a"}'), format: 'auto' as const }
    assert.equal(await checkReader(cut, folder), 'refused')
    await assert.rejects(checkReader({ ...cut, rows: 1 }, folder), /A whole file was refused/)
  })
})
