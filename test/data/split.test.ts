import assert from 'node:assert/strict'
import fc from 'fast-check'
import type { Conversation } from '../../lib/data/conversation.ts'
import { splitForEvaluation, splitKey } from '../../lib/data/split.ts'
import { failure } from './helpers.ts'

const source = { file: 'a.jsonl', line: 1 }

describe('splitting off evaluation', () => {
  const keys = Array.from({ length: 1000 }, (_, i) => `question ${i % 400}`)

  it('takes the share asked for, whole groups, the same for the same seed', () => {
    const sides = splitForEvaluation(keys, 0.1, 42)
    assert.equal(sides.filter(Boolean).length, 100)
    const chosen = new Set(keys.filter((_, i) => sides[i]))
    assert.ok(keys.every((key, i) => chosen.has(key) === sides[i]))
    assert.deepEqual(splitForEvaluation(keys, 0.1, 42), sides)
    assert.notDeepEqual(splitForEvaluation(keys, 0.1, 43), sides)
  })

  it('does not depend on the order of rows', () => {
    const sides = new Map(keys.map((key, i) => [key, splitForEvaluation(keys, 0.2, 1)[i]]))
    fc.assert(
      fc.property(fc.shuffledSubarray(keys, { minLength: keys.length }), (shuffled) => {
        const again = splitForEvaluation(shuffled, 0.2, 1)
        assert.ok(shuffled.every((key, i) => again[i] === sides.get(key)))
      }),
      { numRuns: 10 },
    )
  })

  it('refuses to leave a side empty', () => {
    assert.throws(() => splitForEvaluation(['a', 'a', 'a'], 0.5, 1), failure('ERR_EVAL_SPLIT', 'none for evaluation'))
    assert.throws(() => splitForEvaluation(['a'], 0.9, 1), failure('ERR_EVAL_SPLIT', 'none for training'))
    assert.equal(splitForEvaluation(['a', 'b'], 0.01, 1).filter(Boolean).length, 1)
  })

  it('keys a conversation by its first user turn', () => {
    const conversation = (...contents: [Conversation['messages'][number]['role'], string][]): Conversation => ({
      messages: contents.map(([role, content]) => ({ role, content })),
      source,
    })
    const key = splitKey(conversation(['system', 'x'], ['user', 'Hi'], ['assistant', 'a']))
    assert.equal(key, splitKey(conversation(['user', 'Hi'], ['assistant', 'b'], ['user', 'c'], ['assistant', 'd'])))
    assert.notEqual(key, splitKey(conversation(['user', 'Ho'], ['assistant', 'a'])))
    assert.equal(splitKey({ text: 'Hi', source }), key)
    assert.notEqual(splitKey(conversation(['assistant', 'a'])), splitKey(conversation(['assistant', 'b'])))
  })
})
