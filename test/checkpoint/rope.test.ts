import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { readConfig } from '../../lib/checkpoint/families/index.ts'

interface Golden {
  cases: {
    config: Record<string, unknown>
    tables: { inverse_frequencies: number[]; scale: number }[]
    long_rope_threshold: number
  }[]
}

describe('rotary tables', () => {
  const path = new URL('../golden/rope.json', import.meta.url)
  const golden = JSON.parse(readFileSync(path, 'utf8')) as Golden

  for (const { config, tables, long_rope_threshold: threshold } of golden.cases) {
    const fields = Object.entries(config).filter(([name]) => /rope|rotary|head_dim/.test(name))
    const title = JSON.stringify(Object.fromEntries(fields)).slice(0, 150)
    it(`are those of Transformers: ${config.model_type}, ${title}`, () => {
      const { spec } = readConfig(config, 'config.json')
      assert.equal(spec.longRopeThreshold, threshold)
      assert.equal(spec.ropes.length, tables.length)
      for (const [index, { inverse_frequencies: expected, scale }] of tables.entries()) {
        const actual = spec.ropes[index]!
        assert.equal(actual.inverseFrequencies.length, expected.length)
        assert.equal(spec.rotaryDim, 2 * expected.length)
        assert.ok(Math.abs(actual.scale / scale - 1) < 1e-15, `scale ${actual.scale} for ${scale}`)
        for (const [at, value] of actual.inverseFrequencies.entries()) {
          assert.equal(value, Math.fround(value), 'a float32 value')
          // torch's vectorised pow may be off by one unit in the last place (2^-23), the quotient by one more; where
          // yarn blends two frequencies both are.
          assert.ok(Math.abs(value / expected[at]! - 1) <= 2 ** -22, `${index}, ${at}: ${value} for ${expected[at]}`)
        }
      }
    })
  }

  it('cover every type', () => {
    const types = golden.cases.map(({ config }) => {
      const rope = (config.rope_scaling ?? config.rope_parameters ?? {}) as Record<string, string>
      return rope.rope_type ?? rope.type ?? 'default'
    })
    assert.deepEqual(new Set(types), new Set(['default', 'linear', 'dynamic', 'yarn', 'longrope', 'llama3']))
  })
})
