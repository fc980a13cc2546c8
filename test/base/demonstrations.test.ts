import assert from 'node:assert/strict'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { checkAnswer } from '../../scripts/base/check-answer.ts'
import { DEMONSTRATIONS, expand, HELD_OUT_PROMPTS, makeAll } from '../../scripts/base/demonstrations.ts'
import { heldOut as heldOutWords, training } from '../../scripts/base/words.ts'
import { Random } from '../../scripts/random.ts'

interface Row {
  messages: { role: string; content: string }[]
}
const rows = (name: string) =>
  readFileSync(join('assets', name), 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Row)

const { demonstrations, heldOut } = makeAll()

function bytesUnder(folder: string): number {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, entry) => sum + statSync(join(entry.parentPath, entry.name)).size, 0)
}

describe('demonstrations', () => {
  it('are what the committed grammar makes', () => {
    assert.deepEqual(
      rows('demonstrations.jsonl').map(({ messages }) => messages.map(({ content }) => content)),
      demonstrations.map(({ prompt, answer }) => [prompt, answer]),
    )
    assert.deepEqual(
      rows('heldout.jsonl').map(({ messages }) => messages.map(({ content }) => content)),
      heldOut.map(({ prompt }) => [prompt]),
    )
    assert.equal(demonstrations.length, DEMONSTRATIONS)
    assert.equal(heldOut.length, HELD_OUT_PROMPTS)
  })

  it('are all accepted by the checker, as are the answers the grammar has for the held-out prompts', () => {
    for (const demonstration of [...demonstrations, ...heldOut]) {
      assert.deepEqual(checkAnswer(demonstration, demonstration.answer), [], demonstration.answer)
    }
  })

  it('hold no story that fits the next request', () => {
    const stories = demonstrations.filter(({ kind }) => kind === 'story')
    for (const [index, { kind, mentions, avoids }] of stories.entries()) {
      const { answer } = stories[(index + 1) % stories.length]!
      assert.notDeepEqual(checkAnswer({ kind, mentions, avoids }, answer), [], `${mentions}: ${answer}`)
    }
  })

  it('hold every held-out prompt and none of the held-out words', () => {
    const text = demonstrations.map(({ prompt, answer }) => `${prompt}\n${answer}`).join('\n')
    const prompts = new Set(demonstrations.map(({ prompt }) => prompt))
    assert.equal(heldOut.filter(({ prompt }) => prompts.has(prompt)).length, 0)
    const words = [
      ...heldOutWords.names.map(({ text }) => text),
      ...heldOutWords.animals,
      ...heldOutWords.things.map(({ noun }) => noun),
    ]
    for (const word of words) assert.doesNotMatch(text, new RegExp(`\\b${word}s?\\b`), word)
    const fresh = heldOut.filter(({ prompt }) => words.some((word) => new RegExp(`\\b${word}\\b`).test(prompt)))
    assert.equal(fresh.length, 50)
  })

  it('never repeat a name, animal and thing', () => {
    const stories = [...demonstrations, ...heldOut].filter(({ kind }) => kind === 'story')
    assert.equal(new Set(stories.map(({ mentions }) => mentions.join())).size, stories.length)
  })

  it('use every word of their lists', () => {
    const text = demonstrations.map(({ prompt, answer }) => `${prompt}\n${answer}`).join('\n')
    const words = [
      ...training.names.map(({ text }) => text),
      ...training.animals,
      ...training.things.map(({ noun }) => noun),
    ]
    for (const word of words) assert.match(text, new RegExp(`\\b${word}\\b`), word)
  })

  it('are plain, well-formed English on the surface', () => {
    for (const { prompt, answer } of [...demonstrations, ...heldOut]) {
      for (const text of [prompt, answer]) {
        assert.doesNotMatch(text, /[{}[\]|\n]| {2}|[^\x20-\x7e]/, 'no rest of the grammar')
        assert.doesNotMatch(text, /\ba [aeiou]|\ban (?!hour)[^aeiou]/i, text)
        assert.match(text, /^["A-Z].*[.!?]"?$/, text)
        assert.doesNotMatch(text, /\. [a-z]/, text)
      }
    }
  })

  it('name the place where the grammar lacks a word', () => {
    const values = (key: string) => {
      throw new RangeError(`no ${key}`)
    }
    assert.throws(() => expand('{a color}', values, new Random(1)), /no color/)
  })

  it('fit into the assets with the base: at most 6,000,000 bytes', () => {
    assert.ok(bytesUnder('assets') <= 6_000_000)
    assert.ok(statSync('assets/demonstrations.jsonl').size < 500_000)
  })
})
