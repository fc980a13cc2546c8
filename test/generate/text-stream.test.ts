import assert from 'node:assert/strict'
import fc from 'fast-check'
import { TextStream } from '../../lib/generate/text-stream.ts'

const encoder = new TextEncoder()

/** A tokenizer whose tokens are bytes: every character beyond ASCII is cut. */
const bytes = { decode: async (ids: ArrayLike<number>) => new TextDecoder().decode(Uint8Array.from(ids)) }

async function streamed(text: string, stops: readonly string[]) {
  const stream = new TextStream(bytes, stops)
  const pieces: string[] = []
  for (const id of encoder.encode(text)) {
    pieces.push(await stream.push(id))
    if (stream.stopped) break
  }
  const { text: whole, rest } = await stream.end()
  return { pieces: [...pieces, rest], whole, stopped: stream.stopped }
}

describe('text as it comes', () => {
  it('is told without half characters, and is the whole text at the end', async () => {
    const { pieces, whole } = await streamed('Zwölf 😀 Äpfel', [])
    assert.equal(whole, 'Zwölf 😀 Äpfel')
    assert.equal(pieces.join(''), whole)
    assert.ok(!pieces.some((piece) => piece.includes('\ufffd')))
    assert.ok(pieces.filter((piece) => piece !== '').length > 10)
  })

  it('holds back what may be a stop string until it is none', async () => {
    const { pieces, whole, stopped } = await streamed('a##b###c', ['###'])
    assert.deepEqual(pieces.slice(0, 7), ['a', '', '', '##b', '', '', ''])
    assert.equal(whole, 'a##b')
    assert.ok(stopped)
    const open = await streamed('a##', ['###'])
    assert.deepEqual(open.pieces, ['a', '', '', '##'])
    assert.ok(!open.stopped)
  })

  it('ends before the first of several stop strings, however they overlap', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.string({ unit: fc.constantFrom('a', 'b', 'ä', '😀'), maxLength: 20 }),
        fc.array(fc.string({ unit: fc.constantFrom('a', 'b', 'ä', '😀'), minLength: 1, maxLength: 4 }), {
          maxLength: 3,
        }),
        async (text, stops) => {
          // What a reader who sees the text grow character by character would keep.
          let expected = text
          for (let length = 0, done = false; length <= text.length && !done; length++) {
            const found = stops.map((stop) => text.slice(0, length).indexOf(stop)).filter((at) => at >= 0)
            done = found.length > 0
            if (done) expected = text.slice(0, Math.min(...found))
          }
          const { pieces, whole, stopped } = await streamed(text, stops)
          assert.equal(whole, expected)
          assert.equal(pieces.join(''), expected)
          assert.equal(
            stopped,
            stops.some((stop) => text.includes(stop)),
          )
        },
      ),
      { numRuns: 300 },
    )
  })
})
