import assert from 'node:assert/strict'
import fc from 'fast-check'
import { packStep } from '../../lib/batch/pack.ts'

const sum = (lengths: readonly number[], bin: readonly number[]) => bin.reduce((total, i) => total + lengths[i]!, 0)

describe('packing of a step', () => {
  const steps = fc.record({
    lengths: fc.array(fc.integer({ min: 1, max: 120 }), { maxLength: 60 }),
    capacity: fc.integer({ min: 1, max: 300 }),
  })

  it('places every example once, in order, within the capacity or alone', () => {
    fc.assert(
      fc.property(steps, ({ lengths, capacity }) => {
        const bins = packStep(lengths, capacity)
        assert.deepEqual(
          bins.flat().sort((a, b) => a - b),
          lengths.map((_, i) => i),
        )
        for (const bin of bins) {
          assert.ok(bin.length === 1 || sum(lengths, bin) <= capacity)
          assert.deepEqual(
            bin,
            bin.toSorted((a, b) => a - b),
          )
        }
        const firsts = bins.map((bin) => bin[0]!)
        assert.deepEqual(
          firsts,
          firsts.toSorted((a, b) => a - b),
        )
      }),
    )
  })

  it('is optimal on small steps but for one micro-batch', () => {
    const small = fc.record({
      lengths: fc.array(fc.integer({ min: 1, max: 20 }), { maxLength: 8 }),
      capacity: fc.integer({ min: 20, max: 40 }),
    })
    fc.assert(
      fc.property(small, ({ lengths, capacity }) => {
        assert.ok(packStep(lengths, capacity).length <= fewest(lengths, capacity) + 1)
      }),
    )
  })

  it('makes micro-batches even', () => {
    const lengths = [...Array(16)].map((_, i) => 100 + i)
    const fills = packStep(lengths, 1000).map((bin) => sum(lengths, bin))
    assert.equal(fills.length, 2)
    assert.ok(Math.abs(fills[0]! - fills[1]!) <= 16, `fills ${fills}`)
  })

  it('spreads the loss evenly too, where the lengths leave a choice', () => {
    const lengths = [...Array(32)].map((_, i) => 100 + (i % 3))
    const supervised = lengths.map((_, i) => (i % 4 < 2 ? 90 : 10))
    const spreadOf = (bins: number[][], values: number[]) => {
      const sums = bins.map((bin) => sum(values, bin))
      return Math.max(...sums) - Math.min(...sums)
    }
    const bins = packStep(lengths, 820, supervised)
    assert.equal(bins.length, packStep(lengths, 820).length)
    assert.ok(spreadOf(bins, lengths) <= 25, `tokens differ by ${spreadOf(bins, lengths)}`)
    assert.ok(spreadOf(bins, supervised) <= 90, `rows with loss differ by ${spreadOf(bins, supervised)}`)
    assert.ok(spreadOf(packStep(lengths, 820), supervised) > 90, 'by lengths alone they are not')
  })

  it('never takes a micro-batch more for the sake of the loss', () => {
    const withLoss = steps.chain((step) =>
      fc.array(fc.nat(120), { minLength: step.lengths.length, maxLength: step.lengths.length }).map((supervised) => ({
        ...step,
        supervised,
      })),
    )
    fc.assert(
      fc.property(withLoss, ({ lengths, capacity, supervised }) => {
        const bins = packStep(lengths, capacity, supervised)
        assert.ok(bins.length <= packStep(lengths, capacity).length)
        assert.deepEqual(
          bins.flat().sort((a, b) => a - b),
          lengths.map((_, i) => i),
        )
        for (const bin of bins) assert.ok(bin.length === 1 || sum(lengths, bin) <= capacity)
      }),
    )
  })

  it('uses one micro-batch where everything fits', () => {
    assert.deepEqual(packStep([3, 4, 5], 12), [[0, 1, 2]])
    assert.deepEqual(packStep([], 12), [])
  })

  it('falls back to best fit where the even packing would need one more', () => {
    // Longest-first into the emptiest bin overflows two bins of 10 here; 4+3+3 and 6+4 fill them exactly.
    const bins = packStep([6, 4, 4, 3, 3], 10)
    assert.equal(bins.length, 2)
  })

  it('gives an example of the capacity or more its own micro-batch', () => {
    assert.deepEqual(packStep([2, 50, 3, 10], 10), [[0, 2], [1], [3]])
  })
})

/** The least number of bins, by trying every assignment. */
function fewest(lengths: readonly number[], capacity: number): number {
  const bins: number[] = []
  let best = lengths.length
  const place = (i: number) => {
    if (bins.length >= best) return
    if (i === lengths.length) {
      best = bins.length
      return
    }
    for (let bin = 0; bin < bins.length; bin++) {
      if (bins[bin]! + lengths[i]! > capacity) continue
      bins[bin]! += lengths[i]!
      place(i + 1)
      bins[bin]! -= lengths[i]!
    }
    bins.push(lengths[i]!)
    place(i + 1)
    bins.pop()
  }
  place(0)
  return best
}
