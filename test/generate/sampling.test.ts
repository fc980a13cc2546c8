import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { type SamplingOptions, sampleToken, samplingWeights } from '../../lib/generate/sampling.ts'

interface Case {
  logits: number[]
  seen: number[]
  options: SamplingOptions
  probabilities: number[]
}

const golden: Case[] = JSON.parse(readFileSync(new URL('../golden/sampling.json', import.meta.url), 'utf8'))

describe('sampling', () => {
  it("draws from the distribution of Transformers' logits processors", () => {
    assert.ok(golden.length >= 10)
    for (const { logits, seen, options, probabilities } of golden) {
      const found = normalised(samplingWeights(Float32Array.from(logits), options, new Set(seen)))
      for (const [id, expected] of probabilities.entries()) {
        const where = `${JSON.stringify(options)}, token ${id}`
        assert.equal(found[id] === 0, expected === 0, where)
        assert.ok(Math.abs(found[id]! - expected) < 1e-12, `${where}: ${found[id]} instead of ${expected}`)
      }
    }
  })

  it('draws from the distribution that its definition gives, ties included', () => {
    fc.assert(
      fc.property(cases, ({ logits, seen, options }) => {
        const found = normalised(samplingWeights(logits, options, seen))
        const expected = oracle(logits, options, seen)
        assert.deepEqual(
          found.map((value) => value > 0),
          expected.map((value) => value > 0),
        )
        for (const [id, value] of expected.entries()) assert.ok(Math.abs(found[id]! - value) < 1e-12)
      }),
      { numRuns: 500 },
    )
  })

  it('keeps as many as topK says, however many', () => {
    const logits = Float32Array.from({ length: 5000 }, (_, id) => Math.sin(id * 7919) * 10)
    for (const topK of [1, 2, 50, 1024, 1025, 4999, 5000, 9000]) {
      const kept = samplingWeights(logits, { temperature: 1, topK })
      const expected = Float32Array.from(logits).sort().slice(-topK)
      const found = logits.filter((_, id) => kept[id]! > 0).sort()
      assert.deepEqual(found, expected, `${topK}`)
    }
  })

  it('draws each token as often as its probability says', () => {
    const logits = Float32Array.of(1, 0.5, -1, 2, 0, 0.3)
    const options = { temperature: 0.9, topP: 0.95, seed: 7 }
    const expected = normalised(samplingWeights(logits, options))
    const draws = 40_000
    const counts = new Float64Array(logits.length)
    for (let index = 0; index < draws; index++) counts[sampleToken(logits, options, index)]!++
    for (const [id, probability] of expected.entries()) {
      const deviation = Math.sqrt((probability * (1 - probability)) / draws)
      assert.ok(Math.abs(counts[id]! / draws - probability) <= 4 * deviation, `token ${id}: ${counts[id]! / draws}`)
    }
  })

  it('draws by seed and position alone', () => {
    const logits = Float32Array.from({ length: 50 }, (_, id) => Math.sin(id))
    const drawn = (seed: number) =>
      Array.from({ length: 40 }, (_, index) => sampleToken(logits, { temperature: 1, seed }, index))
    assert.deepEqual(drawn(1), drawn(1))
    assert.notDeepEqual(drawn(1), drawn(2))
    assert.notDeepEqual(drawn(1), drawn(1 + 2 ** 32))
    assert.ok(new Set(drawn(1)).size > 10)
  })

  it('is greedy with temperature 0, after the repetition penalty', () => {
    const logits = Float32Array.of(1, 4, 4, 3, -1)
    assert.equal(sampleToken(logits, {}, 0), 1)
    assert.equal(sampleToken(logits, { repetitionPenalty: 1.5 }, 0, new Set([1])), 2)
    assert.equal(sampleToken(logits, { repetitionPenalty: 1.5 }, 0, new Set([1, 2])), 3)
    // A negative logit becomes more negative.
    assert.equal(sampleToken(Float32Array.of(-1, -1.2), { repetitionPenalty: 2 }, 0, new Set([0])), 1)
  })

  it('refuses logits that are no numbers', () => {
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY])
      for (const temperature of [0, 1])
        assert.throws(() => sampleToken(Float32Array.of(value, 1), { temperature }, 0), {
          code: 'ERR_NON_FINITE_LOGITS',
        })
  })
})

const cases = fc
  .record({
    // Few distinct values: ties are frequent. Eighths are exact.
    logits: fc
      .array(fc.integer({ min: -24, max: 24 }), { minLength: 1, maxLength: 30 })
      .map((list) => Float32Array.from(list, (n) => n / 8)),
    seen: fc.array(fc.nat(29), { maxLength: 10 }).map((ids) => new Set(ids)),
    options: fc.record({
      temperature: fc.constantFrom(0.5, 1, 1.7),
      topK: fc.constantFrom(0, 1, 3, 10),
      // No sum of a few exponentials meets these shares exactly.
      topP: fc.constantFrom(1, 0.917, 0.513, 0.0117),
      minP: fc.constantFrom(0, 0.0517, 0.513),
      repetitionPenalty: fc.constantFrom(1, 1.3, 0.8),
    }),
  })
  .map(({ seen, ...rest }) => ({ ...rest, seen: new Set([...seen].filter((id) => id < rest.logits.length)) }))

/** The definitions, one after the other, over a sorted list. */
function oracle(
  logits: Float32Array,
  options: Required<Omit<SamplingOptions, 'seed'>>,
  seen: ReadonlySet<number>,
): number[] {
  const { temperature, topK, topP, minP, repetitionPenalty } = options as Record<string, number>
  const scores = Array.from(logits, (score, id) => {
    if (!seen.has(id)) return score
    return score > 0 ? score / repetitionPenalty! : score * repetitionPenalty!
  }).map((score) => score / temperature!)
  let kept = [...scores.keys()].sort((a, b) => scores[b]! - scores[a]! || a - b)
  const least = scores[kept[Math.min(topK! || kept.length, kept.length) - 1]!]!
  kept = kept.filter((id) => scores[id]! >= least - 1e-12)
  const probabilities = () => {
    const total = kept.reduce((sum, id) => sum + Math.exp(scores[id]!), 0)
    return kept.map((id) => Math.exp(scores[id]!) / total)
  }
  if (topP! < 1) {
    const all = probabilities()
    let before = 0
    kept = kept.filter((_, rank) => {
      const inside = rank === 0 || before < topP!
      before += all[rank]!
      return inside
    })
  }
  kept = kept.filter((id) => Math.exp(scores[id]! - scores[kept[0]!]!) >= minP!)
  const result = scores.map(() => 0)
  for (const [rank, probability] of probabilities().entries()) result[kept[rank]!] = probability
  return result
}

function normalised(weights: Float64Array): number[] {
  const total = weights.reduce((sum, weight) => sum + weight, 0)
  return Array.from(weights, (weight) => weight / total)
}
