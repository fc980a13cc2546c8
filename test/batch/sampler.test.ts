import assert from 'node:assert/strict'
import fc from 'fast-check'
import { epochOrder, philox } from '../../lib/batch/sampler.ts'

describe('sampler', () => {
  it('is Philox 4x32-10 as published (known-answer vectors of Random123)', () => {
    assert.deepEqual([...philox([0, 0], [0, 0, 0, 0])], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8])
    const ones = 0xffffffff
    assert.deepEqual(
      [...philox([ones, ones], [ones, ones, ones, ones])],
      [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
    )
    assert.deepEqual(
      [...philox([0xa4093822, 0x299f31d0], [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344])],
      [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    )
  })

  it('visits every conversation exactly once, alike for the same seed and epoch', () => {
    const settings = fc.record({ count: fc.nat(500), seed: fc.maxSafeNat(), epoch: fc.nat(100) })
    fc.assert(
      fc.property(settings, ({ count, seed, epoch }) => {
        const order = epochOrder(count, { seed, epoch, shuffle: true })
        assert.deepEqual(
          Array.from(order).sort((a, b) => a - b),
          Array.from({ length: count }, (_, i) => i),
        )
        assert.deepEqual(order, epochOrder(count, { seed, epoch, shuffle: true }))
      }),
    )
  })

  it('depends on the seed, high bits included, and on the epoch', () => {
    const orders = [
      [42, 0],
      [42, 1],
      [43, 0],
      [42 + 2 ** 32, 0],
    ].map(([seed, epoch]) => epochOrder(50, { seed: seed!, epoch: epoch!, shuffle: true }).join())
    assert.equal(new Set(orders).size, 4)
  })

  it('keeps the order of the data without shuffling', () => {
    assert.deepEqual([...epochOrder(4, { seed: 1, epoch: 3, shuffle: false })], [0, 1, 2, 3])
  })

  it('puts every conversation at every place about equally often', () => {
    const counts = new Float64Array(5 * 5)
    const rounds = 20_000
    for (let epoch = 0; epoch < rounds; epoch++) {
      epochOrder(5, { seed: 7, epoch, shuffle: true }).forEach((value, index) => {
        counts[value * 5 + index]!++
      })
    }
    // Five standard deviations of a binomial with p = 1/5.
    for (const count of counts) assert.ok(Math.abs(count - rounds / 5) < 5 * Math.sqrt(rounds * 0.2 * 0.8))
  })
})
