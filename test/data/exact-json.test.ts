import assert from 'node:assert/strict'
import fc from 'fast-check'
import { NUMBERS, orderedKeys, parseExactJson } from '../../lib/data/exact-json.ts'

type Noted = { [NUMBERS]?: Record<string, string>; [key: string]: unknown }

describe('exact JSON', () => {
  it('is JSON.parse for everything else to see', () => {
    fc.assert(
      fc.property(fc.json(), fc.constantFrom(0, 1, 4), (text, indent) => {
        const spaced = JSON.stringify(JSON.parse(text), null, indent)
        assert.equal(JSON.stringify(parseExactJson(spaced)), JSON.stringify(JSON.parse(spaced)))
      }),
    )
  })

  it('notes numbers that JavaScript would write differently', () => {
    const value = parseExactJson(
      '{"a": 1.0, "b": [1, 2.50, 1e3, -0.0, 12345678901234567890], "c": 0.5, "d": 7}',
    ) as Noted
    assert.deepEqual({ ...value[NUMBERS] }, { a: '1.0' })
    assert.deepEqual({ ...(value.b as unknown as Noted)[NUMBERS] }, { 2: '1e3', 3: '-0.0', 4: '12345678901234567890' })
  })

  it('keeps the order of keys that look like numbers', () => {
    const value = parseExactJson('{ "b": {"10": 1, "9": {"\\u0032": 0, "1": 0}}, "a": 2 }') as { b: { 9: object } }
    assert.deepEqual(orderedKeys(value), ['b', 'a'])
    assert.deepEqual(orderedKeys(value.b), ['10', '9'])
    assert.deepEqual(orderedKeys(value.b[9]), ['2', '1'])
  })

  it('takes the last of keys that come twice, as Python does', () => {
    const value = parseExactJson('{"x": 1.0, "2": 1, "1": 1, "x": 2, "y": [1.0], "y": [2, 3.0]}') as Noted
    assert.deepEqual({ ...value[NUMBERS] }, {})
    assert.equal(value.x, 2)
    assert.deepEqual({ ...(value.y as unknown as Noted)[NUMBERS] }, { 1: '3.0' })
    assert.deepEqual(orderedKeys(value), ['x', '2', '1', 'y'])
    assert.equal((parseExactJson('{"z": {"a": [1.0]}, "z": null}') as Noted).z, null)
  })

  it('reads strings with brackets, quotes and escapes', () => {
    const text = '{"a": "} ] \\" \\\\", "1": ["x\\u0022", {"k": 1.0}], "0": null}'
    const value = parseExactJson(text) as Noted
    assert.deepEqual(orderedKeys(value), ['a', '1', '0'])
    const list = value[1] as Noted[]
    assert.deepEqual({ ...list[1]![NUMBERS] }, { k: '1.0' })
  })

  it('reads deep nesting, and refuses what JSON.parse refuses', () => {
    const depth = 5000
    assert.ok(Array.isArray(parseExactJson(`${'['.repeat(depth)}1.0${']'.repeat(depth)}`)))
    for (const text of ['{"a": 1.0', '[1.0,]', '{"a": 01.0}', ''])
      assert.throws(() => parseExactJson(text), SyntaxError)
  })
})
