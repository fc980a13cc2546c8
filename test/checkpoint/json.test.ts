import assert from 'node:assert/strict'
import fc from 'fast-check'
import { RawObject } from '../../lib/checkpoint/json.ts'
import { throws } from './fixtures.ts'

const parse = (text: string) => RawObject.parse(text, 'file.json', 'ERR_TEST')

describe('JSON with its own text', () => {
  it('keeps numbers as they were written', () => {
    const text = '{"theta": 10000.0, "eps": 1e-05,\n"max":1000000000000000019884624838656, "nested": {"a": 1.0}}'
    const written = parse(text).raw.toString()
    assert.match(written, /"theta": 10000\.0,/)
    assert.match(written, /"eps": 1e-05,/)
    assert.match(written, /"max": 1000000000000000019884624838656,/)
    assert.match(written, /"nested": \{"a": 1\.0\}/)
  })

  it('reads back what it writes, whatever the values and the spacing', () => {
    const object = fc.dictionary(fc.string({ unit: 'binary' }), fc.jsonValue({ maxDepth: 2 }), { maxKeys: 6 })
    const spacing = fc.constantFrom('', 1, 4, '\t', '\r\n')
    fc.assert(
      fc.property(object, spacing, (value, space) => {
        const text = `  ${JSON.stringify(value, null, space)}\n`
        const { raw, value: parsed } = parse(text)
        assert.deepEqual(JSON.parse(raw.toString()), JSON.parse(text))
        assert.deepEqual(parsed, JSON.parse(text))
      }),
    )
  })

  it('replaces, appends and deletes fields, and leaves a field alone that has the value', () => {
    const { raw } = parse('{"a": 1.0, "b": [1, 2], "c": "x"}')
    raw.set('a', 1)
    raw.set('b', [3])
    raw.set('d', { e: true })
    raw.delete('c')
    assert.match(raw.toString(), /"a": 1\.0,/)
    assert.deepEqual(JSON.parse(raw.toString()), { a: 1, b: [3], d: { e: true } })
    assert.equal(RawObject.empty().toString(), '{}\n')
  })

  it('refuses a name that comes twice, also when it is spelt differently', () => {
    throws(() => parse('{"a": 1, "b": {"a": 2}, "\\u0061": 3}'), 'ERR_TEST', /file\.json/, /"a" twice/)
  })

  it('refuses what is no object', () => {
    throws(() => parse('[1]'), 'ERR_TEST', /file\.json must hold a JSON object/)
    throws(() => parse('{"a": '), 'ERR_TEST', /file\.json is not valid JSON/)
  })
})
