import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { Completion, GenerateOptions, Message, Model } from '../../lib/index.ts'
import { loadModel } from '../../lib/index.ts'
import { describeShared, shared } from '../shared.ts'

const base = fileURLToPath(new URL('../../assets/base', import.meta.url))

interface Case {
  prompt: string
  promptIds: number[]
  tokens: number[]
  repetitionPenalty?: number
}

const golden: Case[] = JSON.parse(readFileSync(new URL('../golden/greedy.json', import.meta.url), 'utf8'))

describeShared('greedy generation', () => {
  it('is that of Transformers, token by token, for 20 prompts', async () => {
    assert.equal(golden.length, 20)
    const model = await loadModel(shared('models/stories260K'), { precision: 'float32', threads: 2 })
    try {
      for (const { prompt, promptIds, tokens, repetitionPenalty } of golden) {
        assert.deepEqual([...(await model.encode(prompt))], promptIds)
        const completion = await model.generate(prompt, { maxNewTokens: 64, repetitionPenalty })
        assert.deepEqual([...completion.tokens], tokens, prompt)
      }
    } finally {
      model.close()
    }
  })
})

describeShared('batched generation', () => {
  it('gives what one after the other gives, whatever the number at once', async () => {
    for (const batchSize of [1, 7, 32]) {
      const model = await loadModel(shared('models/stories260K'), { precision: 'float32', threads: 2, batchSize })
      try {
        const plain = golden.filter(({ repetitionPenalty }) => repetitionPenalty === undefined)
        const completions = await model.generateAll(
          plain.map(({ prompt }) => prompt),
          { maxNewTokens: 64 },
        )
        for (const [index, { tokens, prompt }] of plain.entries())
          assert.deepEqual([...completions[index]!.tokens], tokens, `${batchSize} at once: ${prompt}`)
      } finally {
        model.close()
      }
    }
  })
})

describe('generation of several', () => {
  let model: Model
  const prompts = ['Once', 'Tell me about a dog.', 'The moon', 'Why?', 'Tea'].map((content): Message[] => [
    { role: 'user', content },
  ])
  const options = { maxNewTokens: 30, temperature: 0.8, topK: 30, stop: ['e'] }
  before(async () => {
    model = await loadModel(base, { maxContext: 128, threads: 2, batchSize: 3, precision: 'float32' })
  })
  after(() => model.close())

  it('ends each answer by itself, and keeps their order', async () => {
    const all = await model.generateAll(prompts, options)
    for (const [index, prompt] of prompts.entries()) assert.deepEqual(all[index], await model.generate(prompt, options))
    assert.ok(new Set(all.map(({ tokens }) => tokens.length)).size > 1)
    assert.deepEqual(await model.generateAll([]), [])
  })

  it('ends with its signal, names the prompt that is refused, and leaves the model free', async () => {
    const reason = new Error('enough')
    const abort = new AbortController()
    setTimeout(() => abort.abort(reason), 20)
    await assert.rejects(
      model.generateAll(Array(50).fill(prompts[0]), { maxNewTokens: 100, signal: abort.signal }),
      reason,
    )
    const long = 'word '.repeat(200)
    await assert.rejects(model.generateAll(['Once', long]), {
      code: 'ERR_CONTEXT_FULL',
      message: /^prompts\[1\]: the prompt has/,
    })
    await assert.rejects(model.generateAll([], { onToken: () => {} } as object), { code: 'ERR_UNKNOWN_OPTION' })
    const running = model.generateAll(prompts, options)
    await assert.rejects(model.generate('Once'), { code: 'ERR_BUSY' })
    await running
  })
})

describe('generation', () => {
  let model: Model
  const question: Message[] = [{ role: 'user', content: 'Tell me about a dog.' }]
  const options: GenerateOptions = { maxNewTokens: 40, temperature: 0.9, topK: 60, minP: 0.01, seed: 3 }
  before(async () => {
    model = await loadModel(base, { maxContext: 256, threads: 2 })
  })
  after(() => model.close())

  async function collect(stream: AsyncGenerator<string, Completion>) {
    const pieces: string[] = []
    for (;;) {
      const { value, done } = await stream.next()
      if (done) return { pieces, completion: value }
      pieces.push(value)
    }
  }

  it('streams the same text that it returns, however it is asked for', async () => {
    const whole = await model.generate(question, options)
    const told: string[] = []
    const listened = await model.generate(question, { ...options, onToken: (piece) => told.push(piece) })
    const { pieces, completion } = await collect(model.stream(question, options))
    assert.deepEqual(listened, whole)
    assert.deepEqual(completion, whole)
    assert.equal(told.join(''), whole.text)
    assert.equal(pieces.join(''), whole.text)
    assert.ok(pieces.length > 10)
    assert.deepEqual(whole.message, { role: 'assistant', content: whole.text })
    assert.equal((await model.generate('Once', { maxNewTokens: 2 })).message, undefined)
  })

  it('ends before a stop string, which is told to nobody', async () => {
    const { text } = await model.generate(question, options)
    const stop = text.slice(20, 26)
    const { pieces, completion } = await collect(model.stream(question, { ...options, stop: [stop, 'never said'] }))
    assert.equal(completion.text, text.slice(0, text.indexOf(stop)))
    assert.equal(pieces.join(''), completion.text)
    assert.equal(completion.finishReason, 'stop')
    assert.equal(completion.message?.content, completion.text)
    assert.ok(completion.tokens.length < 40)
    assert.deepEqual(await model.generate(question, { ...options, stop }), completion)
  })

  it('ends with the loop that reads it, and the model is free again', async () => {
    let pieces = 0
    for await (const _ of model.stream(question, options)) if (++pieces === 3) break
    assert.equal(pieces, 3)
    await model.generate(question, { maxNewTokens: 1 })
    const open = model.stream(question, options)
    await open.next()
    await assert.rejects(model.generate(question), { code: 'ERR_BUSY' })
    await open.return(undefined as never)
    await model.generate(question, { maxNewTokens: 1 })
    await assert.rejects(
      model.generate(question, {
        onToken: () => {
          throw new Error('mine')
        },
      }),
      { message: 'mine' },
    )
    await model.generate(question, { maxNewTokens: 1 })
  })

  it("ends with its signal, for the signal's reason", async () => {
    const reason = new Error('enough')
    const abort = new AbortController()
    let pieces = 0
    await assert.rejects(async () => {
      for await (const _ of model.stream(question, { ...options, signal: abort.signal }))
        if (++pieces === 3) abort.abort(reason)
    }, reason)
    assert.equal(pieces, 3)
    await assert.rejects(model.generate(question, { signal: AbortSignal.abort(reason) }), reason)
    const late = AbortSignal.timeout(5)
    await assert.rejects(model.generate(question, { maxNewTokens: 200, signal: late }), { name: 'TimeoutError' })
    await model.generate(question, { maxNewTokens: 1 })
  })

  it('draws the same again, and something else with another seed or penalty', async () => {
    const text = async (changes: GenerateOptions) => (await model.generate(question, { ...options, ...changes })).text
    assert.equal(await text({}), await text({}))
    assert.notEqual(await text({ seed: 4 }), await text({}))
    assert.notEqual(await text({ repetitionPenalty: 1.5 }), await text({}))
  })
})
