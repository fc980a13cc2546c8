import assert from 'node:assert/strict'
import fc from 'fast-check'
import { encode, fromHalf, toHalf } from '../../lib/checkpoint/gguf/encode.ts'
import { failure } from '../data/helpers.ts'

const halves = Array.from({ length: 0x7c00 }, (_, bits) => bits)

describe('types of GGUF tensors', () => {
  it('half precision: every number is itself, and what lies between goes to the nearest, ties to even', () => {
    assert.equal(fromHalf(0x3c00), 1)
    assert.equal(fromHalf(0x0001), 2 ** -24)
    assert.equal(fromHalf(0x7bff), 65504)
    for (const bits of halves) {
      const value = fromHalf(bits)
      assert.equal(toHalf(value), bits)
      assert.equal(toHalf(-value), bits | 0x8000)
      const next = bits + 1 < 0x7c00 ? fromHalf(bits + 1) : 65536
      const middle = (value + next) / 2
      assert.equal(toHalf(middle), bits % 2 === 0 ? bits : bits + 1, `${middle}`)
      assert.equal(toHalf(middle * (1 - 2 ** -23)), bits)
      assert.equal(toHalf(middle * (1 + 2 ** -23)), bits + 1)
    }
    assert.equal(toHalf(Number.POSITIVE_INFINITY), 0x7c00)
    assert.ok(Number.isNaN(fromHalf(toHalf(Number.NaN))))
  })

  it('half precision: refuses what is too large, with the name of the tensor', () => {
    assert.throws(
      () => encode('f16', Float32Array.of(1, 70000), 'blk.0.x'),
      failure('ERR_GGUF_RANGE', 'blk.0.x', '70000', 'bf16'),
    )
    assert.doesNotThrow(() => encode('f16', Float32Array.of(Number.POSITIVE_INFINITY), 'x'))
  })

  it('bfloat16: the upper half of a float, rounded to nearest, ties to even', () => {
    const bits = (value: number) => new Uint32Array(Float32Array.of(value).buffer)[0]!
    fc.assert(
      fc.property(fc.float({ noNaN: true }), (value) => {
        const [found] = new Uint16Array(encode('bf16', Float32Array.of(value), 'x').slice().buffer)
        const below = bits(value) >>> 16
        const rest = bits(value) & 0xffff
        const up = rest > 0x8000 || (rest === 0x8000 && below % 2 === 1)
        assert.equal(found, below + (up ? 1 : 0))
      }),
    )
    const [nan] = new Uint16Array(encode('bf16', Float32Array.of(Number.NaN), 'x').slice().buffer)
    assert.ok((nan! & 0x7f80) === 0x7f80 && (nan! & 0x7f) !== 0)
  })

  it('q8_0: blocks of 32 with a scale, no value further off than half a step and what rounding of the scale adds', () => {
    const block = fc.array(fc.float({ min: -1000, max: 1000, noNaN: true }), { minLength: 32, maxLength: 32 })
    fc.assert(
      fc.property(block, block, (first, second) => {
        const values = Float32Array.from([...first, ...second])
        const bytes = encode('q8_0', values, 'x')
        assert.equal(bytes.length, 2 * 34)
        const view = new DataView(bytes.buffer, bytes.byteOffset)
        for (const [index, value] of values.entries()) {
          const at = Math.floor(index / 32) * 34
          const scale = fromHalf(view.getUint16(at, true))
          const quant = view.getInt8(at + 2 + (index % 32))
          const largest = Math.max(
            ...values.subarray(32 * Math.floor(index / 32), 32 * Math.floor(index / 32) + 32).map(Math.abs),
          )
          const step = largest / 127
          assert.ok(Math.abs(scale - step) <= Math.max(step * 2 ** -11, 2 ** -25))
          assert.ok(Math.abs(value - quant * step) <= step * 0.5001 + 1e-30, `${value} as ${quant} · ${step}`)
        }
      }),
    )
    assert.deepEqual(encode('q8_0', new Float32Array(32), 'x'), new Uint8Array(34))
  })
})
