/** Token ids of every text in ../shared/data are those of Python's tokenizers; the suite looks at every 25th text. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { describeShared, shared } from '../shared.ts'
import { golden } from './golden.ts'
import { realTokenizer } from './helpers.ts'

/** Set to look at all of them: minutes. */
const ALL = process.env.TUNESMITH_ALL_IDS === '1'
const EVERY = 25

function strings(value: unknown, found: string[] = []): string[] {
  if (typeof value === 'string') found.push(value)
  else if (Array.isArray(value)) for (const item of value) strings(item, found)
  else if (typeof value === 'object' && value !== null) for (const item of Object.values(value)) strings(item, found)
  return found
}

function texts(file: string): string[] {
  const content = readFileSync(shared(`data/${file}`), 'utf8')
  const lines = content.split('\n').filter((line) => line.trim() !== '')
  return strings(file.endsWith('.jsonl') ? lines.map((line) => JSON.parse(line)) : JSON.parse(content))
}

describeShared(`token ids of ${ALL ? 'all' : `every ${EVERY}th of all`} texts in ../shared/data`, () => {
  for (const [file, byTokenizer] of Object.entries(
    golden<Record<string, Record<string, [string, string]>>>('data-ids.json.gz'),
  )) {
    it(file, async () => {
      const all = texts(file)
      const chosen = ALL ? all : all.filter((_, index) => index % EVERY === 0)
      for (const [name, hashes] of Object.entries(byTokenizer)) {
        const tokenizer = await realTokenizer(name)
        const hash = createHash('sha256')
        for (let start = 0; start < chosen.length; start += 1000) {
          for (const { ids } of await tokenizer.encodeBatch(chosen.slice(start, start + 1000))) {
            hash.update(new Uint8Array(ids.buffer, ids.byteOffset, ids.byteLength))
          }
        }
        assert.equal(hash.digest('hex'), hashes[ALL ? 0 : 1], `${file} with the tokenizer of ${name}`)
      }
    }).timeout(600_000)
  }
})
