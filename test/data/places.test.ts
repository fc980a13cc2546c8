import assert from 'node:assert/strict'
import { placeGroups, placeList } from '../../lib/data/places.ts'

describe('lists of places', () => {
  it('name a file where it changes', () => {
    assert.equal(
      placeList(['/a/x.jsonl:1', '/a/x.jsonl:3', '/a/y.jsonl:2', '/a/x.jsonl:9']),
      '/a/x.jsonl:1, :3, /a/y.jsonl:2, /a/x.jsonl:9',
    )
    assert.equal(placeList(['/a/x.json row 1', '/a/x.json row 3'], 7), '/a/x.json row 1, row 3, ...')
  })

  it('tell a problem once', () => {
    const examples = [
      '/a/x.jsonl:1: f: is empty',
      '/a/x.jsonl:2: f: is empty',
      '/a/x.jsonl:4: g: other',
      '/a/x.jsonl:6 h',
    ]
    assert.deepEqual(placeGroups(examples), [
      '/a/x.jsonl:1, :2: f: is empty',
      '/a/x.jsonl:4: g: other',
      '/a/x.jsonl:6 h',
    ])
    assert.equal(placeList(examples), '/a/x.jsonl:1, :2: f: is empty; /a/x.jsonl:4: g: other, ...')
    assert.equal(placeList(examples.slice(0, 2), 2), '/a/x.jsonl:1, :2: f: is empty')
  })

  it('leave alone what is no place', () => {
    assert.equal(placeList(['somewhere']), 'somewhere')
  })
})
