import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { readConfig } from '../../lib/checkpoint/families/index.ts'

interface Golden {
  cases: { config: Record<string, unknown>; inverse_frequencies: number[] }[]
}

describe('rotary frequencies', () => {
  const path = new URL('../golden/rope.json', import.meta.url)
  const golden = JSON.parse(readFileSync(path, 'utf8')) as Golden

  for (const { config, inverse_frequencies: expected } of golden.cases) {
    const { rope_theta, rope_scaling, rope_parameters, head_dim } = config
    it(`are those of Transformers: head_dim ${head_dim}, ${JSON.stringify({ rope_theta, rope_scaling, rope_parameters })}`, () => {
      const { inverseFrequencies: actual } = readConfig(config, 'config.json').spec.ropes[0]!
      assert.equal(actual.length, expected.length)
      for (const [index, value] of actual.entries()) {
        assert.equal(value, Math.fround(value), 'a float32 value')
        // torch's vectorised pow may be off by one unit in the last place (2^-23), the quotient by one more.
        assert.ok(Math.abs(value / expected[index]! - 1) <= 2 ** -22, `${index}: ${value} for ${expected[index]}`)
      }
    })
  }
})
