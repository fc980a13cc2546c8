import assert from 'node:assert/strict'
import { readFileSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { openTensors, readHeader, type StoredTensor, streamTensor, withFile } from '../../lib/checkpoint/safetensors.ts'
import { storageTypeOf } from '../../lib/checkpoint/safetensors-header.ts'
import { writeTensors } from '../../lib/checkpoint/safetensors-writer.ts'
import type { StorageType } from '../../lib/native/addon.ts'
import { type RawTensor, rejects, safetensors, temporaryFolder } from './fixtures.ts'
import { decode, encode } from './memory-engine.ts'

async function bytesOf(tensor: StoredTensor, chunkBytes: number): Promise<Buffer> {
  const chunks: Buffer[] = []
  await withFile(tensor.file, (handle) =>
    streamTensor(handle, tensor, chunkBytes, async (bytes, offset) => {
      await new Promise((done) => setImmediate(done))
      assert.equal(
        offset,
        chunks.reduce((sum, chunk) => sum + chunk.length, 0),
      )
      assert.ok(bytes.length <= chunkBytes)
      chunks.push(Buffer.from(bytes))
    }),
  )
  return Buffer.concat(chunks)
}

function counting(length: number): RawTensor {
  return { dtype: 'U8', shape: [length], bytes: Uint8Array.from({ length }, (_, index) => index % 251) }
}

describe('reading safetensors', () => {
  const folder = temporaryFolder()
  const path = (name: string): string => join(folder(), name)

  it('gives the values that the safetensors library wrote, in every type', async () => {
    const golden = fileURLToPath(new URL('../golden/safetensors/', import.meta.url))
    const expected = JSON.parse(readFileSync(join(golden, 'expected.json'), 'utf8')) as Record<
      string,
      { dtype: string; shape: number[]; values: string[] }
    >
    const { tensors } = await openTensors(golden)
    assert.deepEqual([...tensors.keys()].sort(), Object.keys(expected).sort())
    for (const [name, { dtype, shape, values }] of Object.entries(expected)) {
      const tensor = tensors.get(name)!
      assert.deepEqual(tensor.shape, shape)
      const type = storageTypeOf(tensor.dtype)
      assert.equal(type, dtype === 'int64' ? undefined : dtype)
      if (type === undefined) continue
      const numbers = values.map((value) => (value === 'inf' ? Number.POSITIVE_INFINITY : Number(value)))
      assert.deepEqual([...decode(type, await bytesOf(tensor, 16))], numbers, name)
    }
  })

  it('streams a tensor in order, whatever the chunk', async () => {
    const tensors = { a: counting(40), b: counting(1000), c: counting(24), e: counting(0) }
    writeFileSync(path('model.safetensors'), safetensors(tensors))
    const store = await openTensors(folder())
    for (const chunk of [8, 16, 24, 1000, 4096]) {
      for (const [name, { bytes }] of Object.entries(tensors)) {
        assert.deepEqual(await bytesOf(store.tensors.get(name)!, chunk), Buffer.from(bytes), `${name} by ${chunk}`)
      }
    }
  })

  it('passes on what the consumer throws, and reads no further', async () => {
    writeFileSync(path('model.safetensors'), safetensors({ a: counting(64) }))
    const tensor = (await openTensors(folder())).tensors.get('a')!
    let calls = 0
    const failing = withFile(tensor.file, (handle) =>
      streamTensor(handle, tensor, 8, async () => {
        calls += 1
        throw new Error('no more')
      }),
    )
    await assert.rejects(failing, /no more/)
    assert.equal(calls, 1)
  })

  it('names a file that was cut after its header was read', async () => {
    writeFileSync(path('model.safetensors'), safetensors({ a: counting(64) }))
    const tensor = (await openTensors(folder())).tensors.get('a')!
    truncateSync(tensor.file, tensor.position + 20)
    await rejects(bytesOf(tensor, 16), 'ERR_SAFETENSORS_TRUNCATED', /model\.safetensors is cut short/)
  })

  it('refuses every truncation of a file, with its path', async () => {
    const whole = safetensors({ a: counting(9), b: counting(4) })
    for (let length = 0; length < whole.length; length++) {
      writeFileSync(path('cut.safetensors'), whole.subarray(0, length))
      await rejects(readHeader(path('cut.safetensors')), 'ERR_SAFETENSORS_TRUNCATED', /cut\.safetensors/, /expected/)
    }
    writeFileSync(path('cut.safetensors'), whole)
    await readHeader(path('cut.safetensors'))
  })

  it('names a file that cannot be read', async () => {
    await rejects(
      readHeader(path('none.safetensors')),
      'ERR_SAFETENSORS_READ',
      /none\.safetensors cannot be read: ENOENT/,
    )
  })

  it('never opens pickled weights', async () => {
    writeFileSync(path('pytorch_model.bin'), 'x')
    await rejects(openTensors(folder()), 'ERR_PICKLE_CHECKPOINT', /pytorch_model\.bin/, /never unpickled/, /convert/)
  })

  it('says which files it looked for where there are none', async () => {
    await rejects(
      openTensors(folder()),
      'ERR_WEIGHTS_NOT_FOUND',
      /neither model\.safetensors nor model\.safetensors\.index\.json/,
    )
    writeFileSync(path('weights.safetensors'), 'x')
    await rejects(openTensors(folder()), 'ERR_WEIGHTS_NOT_FOUND', /It holds weights\.safetensors/)
  })
})

describe('reading shards', () => {
  const folder = temporaryFolder()
  const path = (name: string): string => join(folder(), name)

  function writeShards(map: Record<string, unknown>, metadata: unknown = { total_size: 12 }): void {
    writeFileSync(path('one.safetensors'), safetensors({ a: counting(8) }))
    writeFileSync(path('two.safetensors'), safetensors({ b: counting(4) }))
    writeFileSync(path('model.safetensors.index.json'), JSON.stringify({ metadata, weight_map: map }))
  }
  const good = { a: 'one.safetensors', b: 'two.safetensors' }

  it('joins them', async () => {
    writeShards(good)
    const store = await openTensors(folder())
    assert.deepEqual([...store.tensors.keys()], ['a', 'b'])
    assert.deepEqual(store.files, [path('one.safetensors'), path('two.safetensors')])
    assert.deepEqual(store.warnings, [])
    assert.deepEqual(await bytesOf(store.tensors.get('b')!, 8), Buffer.from([0, 1, 2, 3]))
  })

  it('follows links, as the cache of the hub has them', async () => {
    writeShards(good)
    symlinkSync(path('one.safetensors'), path('model.safetensors'))
    assert.deepEqual([...(await openTensors(folder())).tensors.keys()], ['a'])
  })

  it('warns of a total_size that is not the files’', async () => {
    writeShards(good, { total_size: 13 })
    assert.match((await openTensors(folder())).warnings[0]!, /total_size 13.*hold 12 bytes/)
  })

  it('names a missing shard', async () => {
    writeShards({ ...good, c: 'three.safetensors' })
    await rejects(openTensors(folder()), 'ERR_SHARD_MISSING', /lacks three\.safetensors/, /Fetch it/)
  })

  for (const name of [
    '../one.safetensors',
    '/etc/x.safetensors',
    'sub/one.safetensors',
    '..\\one.safetensors',
    'one.bin',
    7,
  ]) {
    it(`refuses the file name ${name}`, async () => {
      writeShards({ ...good, a: name })
      await rejects(openTensors(folder()), 'ERR_SAFETENSORS_INDEX', /tensor "a"/, /of this folder/)
    })
  }

  const contradictions: [title: string, map: unknown, pattern: RegExp][] = [
    [
      'a tensor that no file has',
      { ...good, c: 'two.safetensors' },
      /lists tensor "c" in two\.safetensors, but no file has it/,
    ],
    [
      'a tensor that is in another file',
      { ...good, a: 'two.safetensors', x: 'one.safetensors' },
      /"a" in two.* it is in one/,
    ],
    ['a file with a tensor it does not list', { b: 'two.safetensors', x: 'one.safetensors' }, /"x"|"a"/],
    ['no map', [], /weight_map/],
    ['an empty map', {}, /weight_map/],
  ]
  for (const [title, map, pattern] of contradictions) {
    it(`refuses an index with ${title}`, async () => {
      writeShards(map as Record<string, unknown>)
      await rejects(openTensors(folder()), 'ERR_SAFETENSORS_INDEX', /index\.json is malformed/, pattern)
    })
  }

  it('refuses a tensor that two files have', async () => {
    writeShards(good)
    writeFileSync(path('two.safetensors'), safetensors({ b: counting(4), a: counting(8) }))
    await rejects(
      openTensors(folder()),
      'ERR_SAFETENSORS_INDEX',
      /"a" is in both one\.safetensors and two\.safetensors/,
    )
  })
})

describe('writing safetensors', () => {
  const folder = temporaryFolder()

  function source(name: string, type: StorageType, values: number[]) {
    const all = Float64Array.from(values)
    const read = async (offset: number, count: number): Promise<Uint8Array> =>
      encode(type, all.subarray(offset, offset + count))
    return { name, type, shape: [values.length], read }
  }
  const sources = [
    source('half', 'float16', [1, 2, 3]),
    source('single', 'float32', [4, 5, 6, 7]),
    source('double', 'float64', [8, 9]),
    source('brain', 'bfloat16', [10, 11]),
  ]
  const bytes = 6 + 16 + 16 + 4

  async function assertHolds(): Promise<void> {
    const { tensors } = await openTensors(folder())
    assert.equal(tensors.size, sources.length)
    for (const { name, shape, read } of sources) {
      const tensor = tensors.get(name)!
      assert.deepEqual(await bytesOf(tensor, 8), Buffer.from(await read(0, shape[0]!)), name)
      assert.equal(
        tensor.position % (tensor.dtype === 'F64' ? 8 : tensor.dtype === 'F32' ? 4 : 2),
        0,
        `${name} is aligned`,
      )
    }
  }

  it('makes one file that reads back, in chunks of any size', async () => {
    const progress: number[] = []
    const files = await writeTensors(folder(), sources, {
      chunkBytes: 5,
      onProgress: (done, total) => progress.push(done, total),
    })
    assert.deepEqual(files, ['model.safetensors'])
    assert.deepEqual(progress.slice(-2), [bytes, bytes])
    assert.deepEqual(
      progress.filter((_, index) => index % 2 === 0),
      [...new Set(progress.filter((_, index) => index % 2 === 0))],
    )
    await assertHolds()
  })

  it('makes shards under the limit, with Transformers’ names and index', async () => {
    const files = await writeTensors(folder(), sources, { maxShardBytes: 20 })
    const names = [
      'model-00001-of-00003.safetensors',
      'model-00002-of-00003.safetensors',
      'model-00003-of-00003.safetensors',
    ]
    assert.deepEqual(files, [...names, 'model.safetensors.index.json'])
    const index = JSON.parse(readFileSync(join(folder(), 'model.safetensors.index.json'), 'utf8')) as object
    const weightMap = { double: names[0], single: names[1], half: names[2], brain: names[2] }
    assert.deepEqual(index, { metadata: { total_size: bytes }, weight_map: weightMap })
    await assertHolds()
    assert.deepEqual((await openTensors(folder())).warnings, [])
  })

  it('gives a tensor over the limit a file of its own', async () => {
    assert.equal((await writeTensors(folder(), sources, { maxShardBytes: 1 })).length, 5)
    await assertHolds()
  })

  it('stops at the signal', async () => {
    await assert.rejects(writeTensors(folder(), sources, { signal: AbortSignal.abort(new Error('stop')) }), /stop/)
  })

  it('refuses a source that delivers too little', async () => {
    const short = { name: 'x', type: 'float32' as const, shape: [2], read: async () => new Uint8Array(4) }
    await rejects(writeTensors(folder(), [short]), 'ERR_INTERNAL', /x as float32 take 8 bytes, but 4/)
  })
})
