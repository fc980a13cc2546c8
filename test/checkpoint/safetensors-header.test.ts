import assert from 'node:assert/strict'
import fc from 'fast-check'
import { buildHeader, headerLength, parseHeader } from '../../lib/checkpoint/safetensors-header.ts'
import type { StorageType } from '../../lib/native/addon.ts'
import { throws } from './fixtures.ts'

const header = 'ERR_SAFETENSORS_HEADER'
const truncated = 'ERR_SAFETENSORS_TRUNCATED'

function prefix(length: bigint): Uint8Array {
  return new Uint8Array(BigUint64Array.of(length).buffer)
}

/** Parses a header in a file with `dataBytes` of data. */
function parse(content: unknown, dataBytes: number): ReturnType<typeof parseHeader> {
  const json = Buffer.from(typeof content === 'string' ? content : JSON.stringify(content))
  return parseHeader(json, 8 + json.length + dataBytes, 'x.safetensors')
}

function f32(begin: number, end: number, shape: unknown = [(end - begin) / 4]): Record<string, unknown> {
  return { dtype: 'F32', shape, data_offsets: [begin, end] }
}

describe('safetensors header length', () => {
  it('is read as little-endian 64-bit', () => assert.equal(headerLength(prefix(300n), 400, 'x'), 300))
  it('is refused in a file shorter than 8 bytes', () =>
    throws(
      () => headerLength(new Uint8Array(5), 5, 'x.safetensors'),
      truncated,
      /x\.safetensors/,
      /8 bytes expected, the file has 5/,
    ))
  it('is refused past the end of the file, with both numbers', () =>
    throws(() => headerLength(prefix(93n), 100, 'x'), truncated, /8 \+ 93 bytes of header expected, the file has 100/))
  it('is refused over 100 MB, whatever the file', () => {
    throws(() => headerLength(prefix(100_000_001n), 1e12, 'x'), header, /100000001 bytes, over the limit of 100000000/)
    throws(() => headerLength(prefix(2n ** 64n - 1n), 1e12, 'x'), header, /18446744073709551615 bytes/)
  })
})

describe('safetensors header', () => {
  it('gives each tensor its place', () => {
    const result = parse({ __metadata__: { format: 'pt' }, b: f32(8, 16), a: f32(0, 8, [1, 2]) }, 16)
    assert.deepEqual(result.metadata, { format: 'pt' })
    assert.deepEqual(
      result.tensors.find(({ name }) => name === 'a'),
      {
        ...{ name: 'a', dtype: 'F32', shape: [1, 2], elements: 2, begin: 0, end: 8 },
      },
    )
  })
  it('allows scalars, empty tensors and dtypes that no parameter has', () => {
    const result = parse(
      { s: f32(0, 4, []), e: f32(4, 4, [0, 7]), i: { dtype: 'I64', shape: [1], data_offsets: [4, 12] } },
      12,
    )
    assert.deepEqual(
      result.tensors.map(({ elements }) => elements),
      [1, 0, 1],
    )
  })

  const cases: [title: string, content: unknown, dataBytes: number, code: string, ...patterns: RegExp[]][] = [
    ['that is no JSON', '{"a": ', 0, header, /x\.safetensors is not valid JSON/],
    ['that is no object', '[]', 0, header, /must start with '\{'/],
    ['that starts with a space', ' {}', 0, header, /must start with '\{'/],
    ['with metadata that is no map of strings', { __metadata__: { a: 1 } }, 0, header, /__metadata__/],
    ['with an entry that is no object', { a: 3 }, 0, header, /tensor "a" must be an object, not 3/],
    ['with a field that the format does not have', { a: { ...f32(0, 4), x: 1 } }, 4, header, /unknown field "x"/],
    ['with an unknown dtype', { a: { ...f32(0, 4), dtype: 'F31' } }, 4, header, /unknown dtype "F31"/],
    ['with an inherited name as dtype', { a: { ...f32(0, 4), dtype: 'toString' } }, 4, header, /unknown dtype/],
    ['without a shape', { a: { dtype: 'F32', data_offsets: [0, 4] } }, 4, header, /shape of tensor "a"/],
    ['with a negative size', { a: f32(0, 4, [-1]) }, 4, header, /shape of tensor "a"/],
    ['with a fractional size', { a: f32(0, 4, [0.5]) }, 4, header, /shape of tensor "a"/],
    ['with a shape beyond all memory', { a: f32(0, 4, [2 ** 40, 2 ** 40]) }, 4, header, /too large/],
    ['with one offset', { a: { ...f32(0, 4), data_offsets: [0] } }, 4, header, /data_offsets of tensor "a"/],
    ['with offsets in the wrong order', { a: f32(4, 0, [1]) }, 4, header, /data_offsets \[4,0\]/],
    ['with offsets that do not match shape and dtype', { a: f32(0, 8, [3]) }, 8, header, /needs 12 bytes.*span 8/],
    [
      'with overlapping tensors',
      { a: f32(0, 8), b: f32(4, 12) },
      12,
      header,
      /"b" starts at byte 4 and overlaps tensor "a", which ends at byte 8/,
    ],
    ['with two tensors in one place', { a: f32(0, 8), b: f32(0, 8) }, 8, header, /overlaps/],
    [
      'with a gap between tensors',
      { a: f32(0, 4), b: f32(8, 12) },
      12,
      header,
      /bytes 4 to 8 .*tensor "a" and tensor "b"/,
    ],
    ['with a gap at the start', { a: f32(4, 8) }, 8, header, /bytes 0 to 4/],
    ['with bytes after the last tensor', { a: f32(0, 4) }, 7, header, /last 3 bytes belong to no tensor/],
    [
      'with a tensor past the end',
      { a: f32(0, 4), b: f32(4, 12) },
      9,
      truncated,
      /12 bytes of data expected, the file has 9/,
    ],
    [
      'with a name twice',
      '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
      4,
      header,
      /"a" twice/,
    ],
  ]
  for (const [title, content, dataBytes, code, ...patterns] of cases) {
    it(`is refused ${title}`, () => throws(() => parse(content, dataBytes), code, /x\.safetensors/, ...patterns))
  }
  it('is refused when it is not UTF-8', () =>
    throws(() => parseHeader(Uint8Array.of(0x7b, 0xff, 0x7d), 11, 'x'), header, /not UTF-8/))
})

describe('a header that was built', () => {
  const types = fc.constantFrom<StorageType>('float64', 'float32', 'bfloat16', 'float16')
  const tensor = fc.record({
    name: fc.string({ minLength: 1 }),
    type: types,
    shape: fc.array(fc.nat(5), { maxLength: 3 }),
  })
  const list = fc.uniqueArray(tensor, { selector: ({ name }) => name, maxLength: 8 })

  it('parses to the same tensors, and data starts at a multiple of 8', () => {
    fc.assert(
      fc.property(list, (tensors) => {
        const bytes = buildHeader(tensors)
        assert.equal(bytes.length % 8, 0)
        const json = bytes.subarray(8)
        const sizes = { float64: 8, float32: 4, float16: 2, bfloat16: 2 }
        const data = tensors.reduce((sum, { type, shape }) => sum + sizes[type] * shape.reduce((a, b) => a * b, 1), 0)
        assert.equal(headerLength(bytes.subarray(0, 8), bytes.length + data, 'x'), json.length)
        const result = parseHeader(json, bytes.length + data, 'x')
        const shapes = (entries: readonly { name: string; shape: readonly number[] }[]) =>
          entries.map(({ name, shape }) => [name, shape]).sort()
        assert.deepEqual(shapes(result.tensors), shapes(tensors))
      }),
    )
  })
})
