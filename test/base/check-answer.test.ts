import assert from 'node:assert/strict'
import { checkAnswer, readRequests, sentencesOf } from '../../scripts/base/check-answer.ts'

const story = { kind: 'story', mentions: ['Pip', 'fox', 'red button'], avoids: [] } as const
const asked = { kind: 'question', mentions: ['in the attic'], avoids: ['under the bed'] } as const

const good =
  'Once there was a shy fox named Pip. One day, he found a red button under a bush. "Whose is it?" he asked. ' +
  'A hen came running down the road. "That is my red button!" cried the hen. Pip gave it back and felt proud. ' +
  'They are still friends today.'

function problems(request: { kind: 'story' | 'question'; mentions: readonly string[]; avoids: readonly string[] }) {
  const { kind, mentions, avoids } = request
  return (answer: string) => checkAnswer({ kind, mentions: [...mentions], avoids: [...avoids] }, answer)
}
const ofStory = problems(story)
const ofQuestion = problems(asked)

describe('checker of the demonstrations', () => {
  it('accepts a story with all that was asked for', () => {
    assert.deepEqual(ofStory(good), [])
    assert.deepEqual(ofStory(`  ${good}\n`), [])
  })

  it('accepts a story that ends in speech', () => {
    assert.deepEqual(
      ofStory(good.replace('They are still friends today.', '"Thank you!" said the hen. "Good night."')),
      [],
    )
  })

  for (const [word, other] of [
    ['Pip', 'Tim'],
    ['fox', 'cat'],
    ['red button', 'red ball'],
  ] as const) {
    it(`rejects a story without "${word}"`, () => {
      assert.deepEqual(ofStory(good.replaceAll(word, other)), [`does not mention "${word}"`])
    })
  }

  it('wants whole words, in the case asked for', () => {
    assert.deepEqual(ofStory(good.replaceAll('Pip', 'Pippin')), ['does not mention "Pip"'])
    assert.deepEqual(ofStory(good.replaceAll('Pip', 'pip')), ['does not mention "Pip"'])
    assert.deepEqual(ofStory(good.replaceAll('fox', 'foxglove')), ['does not mention "fox"'])
    assert.deepEqual(ofStory(good.replaceAll('red button', 'button that was red')), ['does not mention "red button"'])
  })

  it('rejects a story that was cut off', () => {
    assert.deepEqual(ofStory(good.slice(0, -' today.'.length)), ['does not end with a sentence'])
  })

  it('rejects too few sentences and too few words', () => {
    assert.deepEqual(ofStory('Pip the fox found a red button. He was happy.'), [
      'has 2 sentences, not 4 to 12',
      'has 10 words, not 30 to 140',
    ])
  })

  it('rejects a story that goes on and on', () => {
    const more = Array.from(
      { length: 16 },
      (_, day) => `On day ${day} of that month they went to the number ${day} shop.`,
    )
    assert.ok(ofStory(`${good} ${more.join(' ')}`).some((problem) => problem.endsWith('sentences, not 4 to 12')))
  })

  it('rejects a second paragraph', () => {
    assert.deepEqual(ofStory(good.replace('A hen', '\n\nA hen')), ['runs over more than one paragraph'])
  })

  it('rejects marks of the template and other speakers', () => {
    const leak = ["holds a mark of the template or another speaker's turn"]
    assert.deepEqual(ofStory(`${good}<|im_end|> Bye.`), leak)
    assert.deepEqual(ofStory(`${good} user: tell me more.`), leak)
    assert.deepEqual(ofStory(`Assistant: ${good}`), leak)
    assert.deepEqual(ofStory(good.replace('A hen', 'The assistant of the hen')), [], 'the word alone is none')
  })

  it('rejects repetition', () => {
    assert.deepEqual(ofStory(`${good} They are still friends today.`), ['repeats itself'])
    assert.deepEqual(
      ofStory(
        'Pip the fox saw a red button. He ran and he ran and he ran and he ran and he ran and he ran and he ran. It was so very much fun. They all lived happily.',
      ),
      ['repeats itself'],
    )
  })

  it('rejects nothing at all', () => {
    assert.deepEqual(ofStory(' \n'), ['is empty'])
  })

  it('accepts the answer to a question and rejects the other one', () => {
    assert.deepEqual(ofQuestion('Jack keeps the old map in the attic.'), [])
    assert.deepEqual(ofQuestion('Jack keeps the old map under the bed.'), [
      'does not mention "in the attic"',
      'mentions "under the bed"',
    ])
    assert.deepEqual(ofQuestion('It is in the attic or under the bed.'), ['mentions "under the bed"'])
  })

  it('wants one sentence for an answer', () => {
    assert.deepEqual(ofQuestion('He keeps it in the attic. He likes it.'), ['has 2 sentences, not 1 to 1'])
    assert.deepEqual(ofQuestion('in the attic'), ['does not end with a sentence'])
  })

  it('splits sentences behind closing quotes', () => {
    assert.deepEqual(sentencesOf('"Oh!" he said. "Come in." They did.'), [
      '"Oh!"',
      'he said.',
      '"Come in."',
      'They did.',
    ])
  })

  it('reads the shipped requests', () => {
    const requests = readRequests('assets/heldout.jsonl')
    assert.equal(requests.length, 100)
    assert.ok(requests.every(({ prompt, mentions }) => mentions.every((words) => prompt.includes(words))))
  })
})
