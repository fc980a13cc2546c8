import assert from 'node:assert/strict'
import fc from 'fast-check'
import { TokenBytes } from '../../lib/chat/token-bytes.ts'
import type { Tokenizer } from '../../lib/chat/tokenizer.ts'
import { shownBytes, tokenText, weightText } from '../../lib/preview/text.ts'
import { realTokenizer, toyTokenizer } from '../chat/helpers.ts'
import { temporaryFolder } from '../data/helpers.ts'
import { describeShared } from '../shared.ts'

const TEXTS = [
  'plain words, and numbers 12345',
  'Zwölf Boxkämpfer\n\n\tjagen  Viktor',
  '漢字かな交じり文 한국어',
  '🦔🏴‍☠️👩‍👩‍👧‍👦 \u0000\u007f\u00a0\u2028',
  'Ġ Ċ ▁ <0x41> literal stand-ins',
]

async function bytesOf(tokenizer: Tokenizer, text: string): Promise<Buffer> {
  const bytes = new TokenBytes(tokenizer)
  return Buffer.concat([...(await tokenizer.encode(text)).ids].map((id) => bytes.of(id)))
}

describeShared('bytes of tokens', () => {
  for (const name of ['deepseek_v3', 'gpt2', 'llama3', 'minimind', 'qwen3']) {
    it(`of ${name} add up to the text`, async () => {
      const tokenizer = await realTokenizer(name)
      for (const text of TEXTS) assert.equal((await bytesOf(tokenizer, text)).toString(), text.normalize('NFC'))
    })
  }

  it('of llama2 add up to the text behind its added space, bytes of the fallback included', async () => {
    const tokenizer = await realTokenizer('llama2')
    for (const text of TEXTS.slice(0, 4)) assert.equal((await bytesOf(tokenizer, text)).toString(), ` ${text}`)
    const bytes = new TokenBytes(tokenizer)
    assert.deepEqual([...bytes.of(tokenizer.id('<0xE2>')!)], [0xe2])
  })
})

describe('bytes of tokens', () => {
  const { path } = temporaryFolder()

  it('are those of any text, byte by byte', async () => {
    const tokenizer = await toyTokenizer(path('toy'), { special: ['<|im_end|>'], added: ['<think>'] })
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: 'binary' }), async (text) => {
        assert.equal((await bytesOf(tokenizer, text)).toString(), text)
      }),
      { numRuns: 50 },
    )
    assert.equal((await bytesOf(tokenizer, 'a<|im_end|><think>é')).toString(), 'a<|im_end|><think>é')
  })
})

describe('what is shown for bytes', () => {
  const shown = (text: string | readonly number[]) =>
    tokenText(typeof text === 'string' ? Buffer.from(text) : Uint8Array.from(text))

  it('makes white space seen and breaks lines where they break', () => {
    assert.equal(shown(' a\tb\r\n\u00a0'), '·a→b␍↵⍽')
    assert.deepEqual(shownBytes(Buffer.from('a\nb')), [
      { text: 'a', stand: false },
      { text: '↵', stand: true, breaks: true },
      { text: 'b', stand: false },
    ])
  })

  it('gives pieces of characters as bytes', () => {
    const hedgehog = [...Buffer.from('🦔')]
    assert.equal(shown(hedgehog.slice(0, 2)), '⟨F0 9F⟩')
    assert.equal(shown([0x61, ...hedgehog.slice(2), 0x62]), 'a⟨A6 94⟩b')
    assert.equal(shown(hedgehog), '🦔')
    // Overlong forms, surrogates and what lies beyond U+10FFFF are no characters.
    assert.equal(shown([0xc0, 0xaf]), '⟨C0 AF⟩')
    assert.equal(shown([0xe0, 0x80, 0xaf]), '⟨E0 80 AF⟩')
    assert.equal(shown([0xed, 0xa0, 0x80]), '⟨ED A0 80⟩')
    assert.equal(shown([0xf4, 0x90, 0x80, 0x80]), '⟨F4 90 80 80⟩')
  })

  it('names what a terminal would obey or a reader not see', () => {
    assert.equal(shown('\x1b[31m'), '⟨U+001B⟩[31m')
    assert.equal(shown('a\u202eb\u200b\ufeff\u{e0041}'), 'a⟨U+202E⟩b⟨U+200B⟩⟨U+FEFF⟩⟨U+E0041⟩')
  })

  it('never lets anything unseen through', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), fc.string({ unit: 'binary' }), (bytes, text) => {
        for (const part of [bytes, Buffer.from(text)]) {
          // The one space allowed stands between two bytes.
          assert.doesNotMatch(tokenText(part).replace(/⟨[0-9A-F ]+⟩/g, ''), /[\p{Z}\p{C}\ufffd]/u)
        }
      }),
    )
  })

  it('gives weights as they were written', () => {
    assert.deepEqual(
      [0, 1, 0.1, 0.3, 2.5, 1 / 3, 1e-7].map((weight) => weightText(Math.fround(weight))),
      ['0', '1', '0.1', '0.3', '2.5', '0.33333334', '1e-7'],
    )
    fc.assert(
      fc.property(fc.float({ min: 0, noNaN: true, noDefaultInfinity: true }), (weight) => {
        assert.equal(Math.fround(Number(weightText(weight))), weight)
      }),
    )
  })
})
