import assert from 'node:assert/strict'
import fc from 'fast-check'
import { collate } from '../../lib/batch/collate.ts'
import { countSupervised, ExamplePool, exampleSet } from '../../lib/batch/example-set.ts'
import { example, exampleSets } from './helpers.ts'

describe('collation', () => {
  it('lays conversations end to end with targets inside each', () => {
    const batch = collate([example(10, 3, [0, 1, 0.5]), example(20, 2, [0, 1])])
    assert.deepEqual([...batch.tokens], [10, 11, 12, 20, 21])
    assert.deepEqual([...batch.positions], [0, 1, 2, 0, 1])
    assert.deepEqual([...batch.cuSeqlens], [0, 3, 5])
    assert.deepEqual([...batch.targets], [11, 12, 0, 21, 0])
    assert.deepEqual([...batch.weights], [1, 0.5, 0, 1, 0])
  })

  it('never uses the weight of a first token', () => {
    assert.deepEqual([...collate([example(1, 2, [5, 1])]).weights], [1, 0])
  })

  it('keeps every conversation whole and every weight at its token', () => {
    fc.assert(
      fc.property(exampleSets, ({ examples, supervised }) => {
        const batch = collate(examples)
        let rows = 0
        for (const [i, { ids, weights }] of examples.entries()) {
          const [start, end] = [batch.cuSeqlens[i]!, batch.cuSeqlens[i + 1]!]
          assert.deepEqual(batch.tokens.slice(start, end), ids)
          assert.deepEqual(batch.targets.slice(start, end - 1), ids.slice(1))
          assert.deepEqual(batch.weights.slice(start, end - 1), weights.slice(1))
          assert.equal(batch.weights[end - 1], 0)
          assert.deepEqual(
            batch.positions.slice(start, end),
            Int32Array.from(ids, (_, position) => position),
          )
          rows += supervised[i]!
        }
        assert.equal(batch.weights.filter((weight) => weight > 0).length, rows)
      }),
    )
  })
})

describe('example sets', () => {
  it('count tokens and remember the longest', () => {
    const set = exampleSet([[example(1, 3, [1, 0, 1])], [], [example(5, 2), example(9, 4)]])
    assert.deepEqual([...set.starts], [0, 1, 3])
    assert.deepEqual([set.tokens, set.supervisedTokens, set.longest], [9, 1 + 1 + 3, 2])
    assert.deepEqual([...set.supervised], [1, 1, 3])
  })

  it('do not count the weight of a first token as supervised', () => {
    assert.equal(countSupervised(Float32Array.of(1, 0, 0.25)), 1)
  })

  it('pool examples of every size, larger than a slab included', () => {
    const pool = new ExamplePool()
    const sizes = [3, (1 << 20) - 2, 5, (1 << 20) + 7, 1]
    const made = sizes.map((size, i) =>
      pool.add(new Int32Array(size).fill(i + 1), new Float32Array(size).fill(i), { file: 'f', line: i }),
    )
    for (const [i, { ids, weights }] of made.entries()) {
      assert.equal(ids.length, sizes[i])
      assert.ok(ids.every((id) => id === i + 1) && weights.every((weight) => weight === i))
    }
  })
})
