import assert from 'node:assert/strict'
import fc from 'fast-check'
import { findJsonError } from '../../lib/data/json-error.ts'

describe('place of a JSON error', () => {
  const cases: [string, number, RegExp][] = [
    ['{"a": 1,}', 9, /"}" where a quoted key/],
    ['{"a": tru}', 7, /"tru" where a value/],
    ['{"a" 1}', 6, /"1" where :/],
    ['[1 2]', 4, /"2" where , or \]/],
    ['{"a": "b', 7, /never ends/],
    ['{"a": "b\tc"}', 9, /U\+0009/],
    ['{"a": "\\x"}', 8, /bad escape "\\\\x"/],
    ['{"a": "\\u12g4"}', 8, /bad escape/],
    ['{"a": 1', 8, /ends where , or }/],
    ["{'a': 1}", 2, /"'" where a quoted key or }/],
    ['{"a": NaN}', 7, /"NaN" where a value/],
    ['{"a": 01}', 8, /"1" where , or }/],
    ['{} {}', 4, /end of the row/],
    ['[1}', 3, /"}" where , or \]/],
    ['', 1, /a value/],
    ['{"😀": x}', 8, /"x"/],
  ]
  for (const [text, column, reason] of cases) {
    it(`of ${text} is column ${column}`, () => {
      assert.throws(() => JSON.parse(text))
      const found = findJsonError(text)
      assert.equal(found?.column, column)
      assert.match(found.reason, reason)
    })
  }

  it('is found exactly where JSON.parse fails', () => {
    const damaged = fc
      .tuple(fc.json(), fc.nat(), fc.constantFrom('', '"', '{', ']', ',', ':', '\\', 'x', '1', '\n', '\u0001'))
      .map(([json, at, insert]) => {
        const place = at % (json.length + 1)
        return json.slice(0, place) + insert + json.slice(place + 1)
      })
    fc.assert(
      fc.property(damaged, (text) => {
        let valid = true
        try {
          JSON.parse(text)
        } catch {
          valid = false
        }
        assert.equal(findJsonError(text) === undefined, valid)
      }),
      { numRuns: 2000 },
    )
  })

  it('is found in text nested too deep for recursion and in megabytes of string', () => {
    assert.equal(findJsonError('['.repeat(200_000))?.column, 200_001)
    assert.equal(findJsonError(`["${'a'.repeat(5_000_000)}`)?.column, 2)
  })
})
