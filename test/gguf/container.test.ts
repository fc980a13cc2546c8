import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { encode } from '../../lib/checkpoint/gguf/encode.ts'
import { exportGguf } from '../../lib/checkpoint/gguf/export.ts'
import { readGgufHeader } from '../../lib/checkpoint/gguf/read.ts'
import { array, bool, float32, type MetadataValue, string, uint32 } from '../../lib/checkpoint/gguf/values.ts'
import { type GgufTensor, writeGguf } from '../../lib/checkpoint/gguf/write.ts'
import { TunesmithError } from '../../lib/errors.ts'
import { temporaryFolder } from '../checkpoint/fixtures.ts'
import { failure } from '../data/helpers.ts'

const metadata = new Map<string, MetadataValue>([
  ['general.architecture', string('llama')],
  ['llama.block_count', uint32(3)],
  ['llama.eps', float32(1e-5)],
  ['flag', bool(true)],
  ['tokens', array('string', ['a', 'é', '😀', ''])],
  ['scores', array('float32', [0, -1.5])],
  ['types', array('int32', [1, -6])],
])

const tensor = (name: string, shape: number[], type: GgufTensor['type'], first = 0): GgufTensor => {
  const count = shape.reduce((product, size) => product * size, 1)
  const values = Float32Array.from({ length: count }, (_, index) => first + index)
  return {
    name,
    shape,
    type,
    async *read() {
      yield encode(type, values.subarray(0, count / 2), name)
      yield encode(type, values.subarray(count / 2), name)
    },
  }
}

describe('the container of GGUF', () => {
  const folder = temporaryFolder()
  const write = async (): Promise<string> => {
    const path = join(folder(), 'm.gguf')
    await writeGguf(path, metadata, [
      tensor('a', [2, 3], 'f32'),
      tensor('b', [4], 'f32', 10),
      tensor('c', [2, 32], 'q8_0'),
      tensor('d', [3, 2], 'bf16'),
    ])
    return path
  }

  it('has the bytes of the specification', async () => {
    const path = join(folder(), 'small.gguf')
    await writeGguf(path, new Map([['k', uint32(7)]]), [tensor('t', [2, 1], 'f32', 1)])
    const expected = Buffer.concat([
      Buffer.from('GGUF'),
      Buffer.from(Uint32Array.of(3).buffer),
      Buffer.from(BigUint64Array.of(1n, 1n).buffer),
      Buffer.from(BigUint64Array.of(1n).buffer),
      Buffer.from('k'),
      Buffer.from(Uint32Array.of(4, 7).buffer),
      Buffer.from(BigUint64Array.of(1n).buffer),
      Buffer.from('t'),
      Buffer.from(Uint32Array.of(2).buffer),
      // The fastest axis first.
      Buffer.from(BigUint64Array.of(1n, 2n).buffer),
      Buffer.from(Uint32Array.of(0).buffer),
      Buffer.from(BigUint64Array.of(0n).buffer),
    ])
    const found = readFileSync(path)
    assert.deepEqual(found.subarray(0, expected.length), expected)
    const data = Math.ceil(expected.length / 32) * 32
    assert.deepEqual(
      [...new Float32Array(found.buffer.slice(found.byteOffset + data, found.byteOffset + data + 8))],
      [1, 2],
    )
    assert.equal(found.length, data + 32)
  })

  it('reads back: values of every type, and each tensor where its bytes are', async () => {
    const path = await write()
    const { metadata: found, tensors } = await readGgufHeader(path)
    assert.deepEqual([...found.keys()], [...metadata.keys()])
    for (const [key, value] of metadata) {
      const expected = value.type === 'float32' ? Math.fround(value.value) : value.value
      assert.deepEqual(found.get(key)!.value, expected, key)
    }
    assert.deepEqual(
      [...tensors].map(([name, { type, shape }]) => [name, type, shape]),
      [
        ['a', 'f32', [2, 3]],
        ['b', 'f32', [4]],
        ['c', 'q8_0', [2, 32]],
        ['d', 'bf16', [3, 2]],
      ],
    )
    const bytes = readFileSync(path)
    const { position } = tensors.get('b')!
    assert.equal(position % 32, 0)
    assert.deepEqual(
      [...new Float32Array(bytes.buffer.slice(bytes.byteOffset + position, bytes.byteOffset + position + 16))],
      [10, 11, 12, 13],
    )
  })

  it('keeps no half file open or in place of another', async () => {
    const path = await write()
    await assert.rejects(writeGguf(path, metadata, []), /EEXIST/)
    const short: GgufTensor = { ...tensor('a', [2], 'f32'), async *read() {} }
    await assert.rejects(
      writeGguf(join(folder(), 'short.gguf'), metadata, [short]),
      /tensor a gave 0 bytes instead of 8/,
    )
    assert.ok(existsSync(path) && readdirSync(folder()).includes('short.gguf'))
  })

  it('is not made of an adapter', async () => {
    writeFileSync(join(folder(), 'adapter_config.json'), '{}')
    await assert.rejects(
      exportGguf({ model: folder(), file: join(folder(), 'a.gguf') }),
      failure('ERR_GGUF_UNSUPPORTED', 'is an adapter', 'export --merge'),
    )
  })

  it('refuses damaged files with one clear error and in bounded memory', async () => {
    const whole = readFileSync(await write())
    const path = join(folder(), 'damaged.gguf')
    const read = async (bytes: Buffer): Promise<unknown> => {
      writeFileSync(path, bytes)
      return readGgufHeader(path).then(
        () => undefined,
        (error: unknown) => error,
      )
    }
    const clear = (error: unknown) =>
      error === undefined || (error instanceof TunesmithError && error.code === 'ERR_INVALID_GGUF')
    assert.match(String(await read(Buffer.from('no model'))), /is no GGUF file/)
    for (let length = 0; length < whole.length - 32; length += 7) {
      const error = await read(whole.subarray(0, length))
      assert.ok(error !== undefined && clear(error), `cut to ${length}: ${error}`)
    }
    await fc.assert(
      fc.asyncProperty(fc.nat(whole.length - 1), fc.nat(255), async (at, byte) => {
        const bytes = Buffer.from(whole)
        bytes[at] = byte
        const error = await read(bytes)
        assert.ok(clear(error), `${error}`)
      }),
      { numRuns: 300 },
    )
  })
})
