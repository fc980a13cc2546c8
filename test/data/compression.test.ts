import assert from 'node:assert/strict'
import { createWriteStream } from 'node:fs'
import { appendFile, copyFile } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { createGzip, gzipSync } from 'node:zlib'
import { readText } from '../../lib/data/containers/bytes.ts'
import { readContainer } from '../../lib/data/containers/index.ts'
import { checkContainer } from '../../lib/data/containers/names.ts'
import { exchange, failure, jsonl, rows, temporaryFolder } from './helpers.ts'

/** zstd of `text` in raw blocks (RFC 8878): Node of this version has no compressor, and the format needs none. */
function zstd(text: string | Buffer, blockBytes = 100_000): Buffer {
  const content = Buffer.from(text as string)
  // A window of 1 MiB, no checksum, no content size.
  const parts = [Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x50])]
  for (let at = 0; at === 0 || at < content.length; at += blockBytes) {
    const block = content.subarray(at, at + blockBytes)
    const last = at + blockBytes >= content.length ? 1 : 0
    const header = Buffer.alloc(3)
    header.writeUIntLE((block.length << 3) | last, 0, 3)
    parts.push(header, block)
  }
  return Buffer.concat(parts)
}

async function text(path: string): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of readText(path)) chunks.push(chunk)
  return Buffer.concat(chunks).toString()
}

describe('compressed files', () => {
  const { path, write } = temporaryFolder()
  const content = jsonl(...Array.from({ length: 2000 }, (_, i) => exchange(`q ${i} ${'é😀'.repeat(i % 50)}`, `a ${i}`)))

  for (const [extension, compress] of Object.entries({ gz: gzipSync, zst: zstd })) {
    it(`.${extension} read as what is inside them, of several members too`, async () => {
      await write(`a.jsonl.${extension}`, compress(`\ufeff${content}`))
      assert.equal(await text(path(`a.jsonl.${extension}`)), content)
      assert.equal((await rows(path(`a.jsonl.${extension}`))).all.length, 2000)
      await write(`b.json.${extension}`, Buffer.concat([compress('[{"text":'), compress('"a"}]')]))
      const { all } = await rows(path(`b.json.${extension}`))
      assert.deepEqual(all, [{ text: 'a', source: { file: path(`b.json.${extension}`), line: 1 } }])
      await write(`c.csv.${extension}`, compress('text\n"a\nb"\nc\n'))
      assert.deepEqual(
        (await rows(path(`c.csv.${extension}`))).all.map(({ source }) => source.line),
        [2, 4],
      )
    })

    it(`.${extension} that are cut short or corrupt are refused, never read in part`, async () => {
      const whole = compress(content)
      for (const length of [0, 3, 20, Math.floor(whole.length / 2), whole.length - 1]) {
        await write(`cut.jsonl.${extension}`, whole.subarray(0, length))
        await assert.rejects(rows(path(`cut.jsonl.${extension}`), 'skip'), failure('ERR_DATA_READ', 'cut short'))
      }
      await write(`tail.jsonl.${extension}`, Buffer.concat([whole, Buffer.from('more of it')]))
      await assert.rejects(
        rows(path(`tail.jsonl.${extension}`), 'skip'),
        failure('ERR_DATA_READ', `tail.jsonl.${extension}`),
      )
      await write(`plain.jsonl.${extension}`, content)
      await assert.rejects(rows(path(`plain.jsonl.${extension}`)), failure('ERR_DATA_FORMAT', 'its content is not'))
    })

    it(`.${extension} under another name are told by their content`, async () => {
      await write('named.jsonl', compress(content))
      await assert.rejects(rows(path('named.jsonl')), failure('ERR_DATA_FORMAT', `ends in .${extension}`))
    })
  }

  it('.gz with a damaged byte are refused', async () => {
    const damaged = gzipSync(content)
    damaged[damaged.length >> 1]! ^= 0x55
    await write('damaged.jsonl.gz', damaged)
    await assert.rejects(rows(path('damaged.jsonl.gz'), 'skip'), failure('ERR_DATA_READ', 'corrupt'))
  })

  it('.gz padded with zeros are read', async () => {
    await write('padded.jsonl.gz', gzipSync(content))
    await copyFile(path('padded.jsonl.gz'), path('zeros.jsonl.gz'))
    await appendFile(path('zeros.jsonl.gz'), Buffer.alloc(512))
    assert.equal(await text(path('zeros.jsonl.gz')), content)
  })

  it('are refused where the container keeps its own compression, or is not known', () => {
    assert.throws(
      () => checkContainer('/x/a.parquet.gz'),
      failure('ERR_DATA_FORMAT', 'compressed inside; unpack the .gz'),
    )
    assert.throws(() => checkContainer('/x/a.txt.zst'), failure('ERR_DATA_FORMAT', '.txt.zst files are not read'))
    assert.throws(() => checkContainer('/x/train'), failure('ERR_DATA_FORMAT', 'has no extension'))
    for (const name of ['a.JSONL.GZ', 'a.ndjson', 'a.b.csv.zst', 'a.json', 'a.parquet']) checkContainer(name)
  })

  it('larger than the memory that reading them takes stream', async function () {
    this.timeout(60_000)
    const row = JSON.stringify(exchange('q'.repeat(2000), 'a'.repeat(2000)))
    const block = Buffer.from(`${row}\n`.repeat(250))
    const blocks = 300
    const file = path('large.jsonl.gz')
    await pipeline(
      Readable.from(
        (function* () {
          for (let i = 0; i < blocks; i++) yield block
        })(),
      ),
      createGzip({ level: 1 }),
      createWriteStream(file),
    )
    // What is still held, not what the collector has not come to yet.
    setFlagsFromString('--expose-gc')
    const collect = runInNewContext('gc') as () => void
    const held = () => {
      collect()
      const { heapUsed, external } = process.memoryUsage()
      return heapUsed + external
    }
    let count = 0
    let peak = 0
    let next = 0
    const before = held()
    for await (const batch of readContainer(file)) {
      count += batch.length
      if (count < next) continue
      next += 10_000
      peak = Math.max(peak, held() - before)
    }
    assert.equal(count, blocks * 250)
    assert.ok(blocks * block.length > 300e6)
    assert.ok(peak < 50e6, `reading held ${Math.round(peak / 1e6)} MB`)
  })
})
