import assert from 'node:assert/strict'
import fc from 'fast-check'
import { truncate } from '../../lib/chat/truncate.ts'
import type { TurnTokens, WeightedTokens } from '../../lib/chat/weights.ts'

/** Turns as [first, end) of a row of `length` tokens with ids 100, 101, ... */
function row(length: number, ...turns: [first: number, end: number, weight?: number][]): WeightedTokens {
  const ids = Int32Array.from({ length }, (_, index) => 100 + index)
  const weights = new Float32Array(length)
  for (const [first, end, weight = 1] of turns) weights.fill(weight, first, end)
  weights[0] = 0
  return {
    ids,
    weights,
    straddling: 0,
    turns: turns.map(([first, end, weight = 1], turn) => ({ first, end, weight, turn })),
  }
}

const TWO_TURNS = row(20, [4, 8], [12, 18])

describe('truncation', () => {
  it('leaves what fits as it is', () => {
    assert.deepEqual(truncate(TWO_TURNS, 20, 'turns'), {
      ...TWO_TURNS,
      lostTokens: 0,
      lostSupervisedTokens: 0,
      lostBefore: 0,
      unstopped: 0,
    })
  })

  it("ends after the last turn that fits whole under 'turns'", () => {
    for (const length of [8, 10, 17]) {
      const { ids, weights, turns, ...counts } = truncate(TWO_TURNS, length, 'turns')!
      assert.deepEqual([...ids], [...TWO_TURNS.ids.subarray(0, 8)])
      assert.deepEqual([...weights], [0, 0, 0, 0, 1, 1, 1, 1])
      assert.deepEqual(turns, [TWO_TURNS.turns[0]])
      assert.deepEqual(counts, { straddling: 0, lostTokens: 12, lostSupervisedTokens: 6, lostBefore: 0, unstopped: 0 })
    }
    assert.equal(truncate(TWO_TURNS, 19, 'turns')!.ids.length, 18)
    assert.equal(truncate(TWO_TURNS, 7, 'turns'), undefined)
    assert.equal(truncate(row(9), 5, 'turns'), undefined)
  })

  it("keeps the beginning under 'right', and counts the turn that lost its stop token", () => {
    const cut = truncate(TWO_TURNS, 15, 'right')!
    assert.equal(cut.ids.length, 15)
    assert.deepEqual([cut.lostTokens, cut.lostSupervisedTokens, cut.unstopped], [5, 3, 1])
    assert.deepEqual(cut.turns.at(-1), { first: 12, end: 15, weight: 1, turn: 1 })
    const between = truncate(TWO_TURNS, 10, 'right')!
    assert.deepEqual([between.lostTokens, between.lostSupervisedTokens, between.unstopped], [10, 6, 0])
    assert.equal(truncate(TWO_TURNS, 4, 'right'), undefined)
  })

  it("keeps the end under 'left', after bos", () => {
    const cut = truncate(TWO_TURNS, 10, 'left', 100)!
    assert.deepEqual([...cut.ids], [100, ...TWO_TURNS.ids.subarray(11)])
    assert.deepEqual(cut.turns, [{ first: 2, end: 8, weight: 1, turn: 1 }])
    assert.deepEqual([...cut.weights], [0, 0, 1, 1, 1, 1, 1, 1, 0, 0])
    assert.deepEqual([cut.lostTokens, cut.lostSupervisedTokens, cut.lostBefore, cut.unstopped], [10, 4, 10, 0])
    const inTurn = truncate(TWO_TURNS, 6, 'left')!
    assert.deepEqual([...inTurn.ids], [...TWO_TURNS.ids.subarray(14)])
    // Nothing predicts the first token.
    assert.deepEqual([...inTurn.weights], [0, 1, 1, 1, 0, 0])
    assert.equal(inTurn.lostSupervisedTokens, 4 + 3)
  })

  it('loses nothing uncounted and never an unseen stop token, for random rows', () => {
    const rows = fc.array(fc.tuple(fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: 6 })), {
      minLength: 1,
      maxLength: 6,
    })
    fc.assert(
      fc.property(
        rows,
        fc.integer({ min: 2, max: 40 }),
        fc.constantFrom('turns', 'right', 'left'),
        (parts, max, how) => {
          let at = 0
          const turns = parts.map(([context, length]): [number, number] => {
            const first = at + context
            at = first + length
            return [first, at]
          })
          const whole = row(at + 1, ...turns)
          const cut = truncate(whole, max, how)
          const count = (weights: Float32Array) => weights.filter((weight) => weight > 0).length
          if (!cut) return
          assert.ok(cut.ids.length <= max && count(cut.weights) > 0)
          assert.equal(cut.weights[0], 0)
          assert.equal(cut.ids.length + cut.lostTokens, whole.ids.length)
          assert.equal(count(cut.weights) + cut.lostSupervisedTokens, count(whole.weights))
          const stops = new Set(turns.map(([, end]) => 100 + end - 1))
          const stopped = (turn: TurnTokens) => stops.has(cut.ids[turn.end - 1]!)
          assert.equal(cut.turns.filter((turn) => !stopped(turn)).length, cut.unstopped)
          if (how !== 'right') assert.equal(cut.unstopped, 0)
        },
      ),
    )
  })
})
