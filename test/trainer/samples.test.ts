import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Message, SampleEvent, TrainerOptions } from '../../lib/index.ts'
import { loadModel, logProbabilities, Trainer } from '../../lib/index.ts'
import { scratchFolder, tinyOptions, train } from './runs.ts'

const question: Message[] = [
  { role: 'system', content: 'Be brief.' },
  { role: 'user', content: 'Tell me about tea.' },
]
const samples = { prompts: ['Tell me about a ball.', question], every: 2, maxNewTokens: 12 }

describe('samples during training', () => {
  it('come before the first step, as often as asked for and at the end, as events and in metrics.jsonl', async () => {
    const heard: SampleEvent[] = []
    const trainer = new Trainer(tinyOptions(scratchFolder(), { samples, maxSteps: 5 }))
    trainer.on('sample', (event) => heard.push(event))
    const { history, metrics } = await trainer.fit()
    assert.deepEqual(
      heard.map(({ step, index }) => [step, index]),
      [0, 2, 4, 5].flatMap((step) => [
        [step, 0],
        [step, 1],
      ]),
    )
    assert.deepEqual(history.samples, heard)
    assert.deepEqual(heard[1]!.prompt, question)
    const lines = readFileSync(metrics, 'utf8').trim().split('\n')
    const kept = lines.map((line) => JSON.parse(line)).filter(({ event }) => event === 'sample')
    assert.deepEqual(
      kept.map(({ event: _, time: __, ...rest }) => rest),
      heard,
    )
    assert.ok(new Set(heard.map(({ text }) => text)).size > 2)
  })

  for (const changes of [{}, { recompute: true }] as Partial<TrainerOptions>[])
    it(`say what the finished checkpoint says, and change nothing else: ${JSON.stringify(changes)}`, async () => {
      const folder = scratchFolder()
      const drawn = { ...samples, temperature: 0.8, topK: 40, seed: 5 }
      const run = (name: string, more: Partial<TrainerOptions>) =>
        train(tinyOptions(folder, { output: join(folder, name), ...changes, ...more }))
      const plain = await run('plain', {})
      const sampled = await run('sampled', { samples: drawn })
      const again = await run('again', { samples: drawn })
      assert.deepEqual(again.history.samples, sampled.history.samples)
      assert.deepEqual(
        sampled.history.steps.map(({ loss, gradNorm }) => [loss, gradNorm]),
        plain.history.steps.map(({ loss, gradNorm }) => [loss, gradNorm]),
      )
      assert.deepEqual(plain.history.samples, [])
      const model = await loadModel(join(folder, 'sampled'), { precision: 'float32', threads: 2 })
      try {
        const last = sampled.history.samples.slice(-2)
        const prompts = [[{ role: 'user' as const, content: 'Tell me about a ball.' }], question]
        for (const [index, prompt] of prompts.entries()) {
          const { prompts: _, every: __, ...options } = drawn
          const { text, finishReason } = await model.generate(prompt, options)
          assert.deepEqual([last[index]!.text, last[index]!.finishReason], [text, finishReason])
        }
      } finally {
        model.close()
      }
    })

  it('come from an adapter while it trains, which scores and answers as it did then', async () => {
    const folder = scratchFolder()
    const model = join(folder, 'base')
    await train(tinyOptions(folder, { output: model, maxSteps: 1 }))
    const output = join(folder, 'adapter')
    const adapter = { type: 'lora' as const, rank: 4, dropout: 0.1 }
    const { history } = await train(
      tinyOptions(folder, { model, output, adapter, samples: { ...samples, temperature: 1 } }),
    )
    const loaded = await loadModel(output, { precision: 'float32', threads: 2 })
    const { text } = await loaded.generate(question, { maxNewTokens: 12, temperature: 1 }).finally(() => loaded.close())
    assert.equal(history.samples.at(-1)!.text, text)
    assert.notEqual(history.samples[1]!.text, text)
    const pairs = [
      {
        prompt: question,
        chosen: [{ role: 'assistant', content: 'It is there.' }],
        rejected: [{ role: 'assistant', content: 'No.' }],
      },
    ]
    const scores = []
    for (const from of [model, output])
      scores.push((await logProbabilities({ model: from, pairs, threads: 2 })).pairs[0]!)
    // What the adapter has learnt to say.
    assert.ok(scores[1]!.chosen > scores[0]!.chosen + 0.1, `${scores[1]!.chosen} after ${scores[0]!.chosen}`)
  })

  it('take a cache that the plan shows, and that is not there without them', async () => {
    const folder = scratchFolder()
    const plan = (more: Partial<TrainerOptions>) => new Trainer(tinyOptions(folder, more)).plan()
    const without = await plan({})
    const { samples: planned, memory } = await plan({ samples })
    assert.equal(without.memory.cache, 0)
    assert.equal(without.samples, undefined)
    assert.equal(planned!.prompts, 2)
    // 2 layers, keys and values, 2 heads of 8 floats.
    assert.ok(memory.cache >= planned!.cacheTokens * 2 * 2 * 16 * 4)
    assert.ok(memory.total > without.memory.total)
    // A list is prompts with the defaults.
    assert.equal((await plan({ samples: samples.prompts })).samples!.prompts, 2)
  })

  it('continue a text where the run has no chat template', async () => {
    const folder = scratchFolder()
    const path = join(folder, 'texts.jsonl')
    writeFileSync(path, `${'{"text": "Once upon a time there was a ball."}\n'.repeat(8)}`)
    const options = tinyOptions(folder, { data: { train: path }, trainOn: 'all', maxSteps: 1 })
    const { history } = await train({ ...options, samples: { prompts: ['Once'], stop: ['zzz'], maxNewTokens: 3 } })
    assert.deepEqual(
      history.samples.map(({ step, tokens }) => [step, tokens]),
      [
        [0, 3],
        [1, 3],
      ],
    )
    await assert.rejects(train({ ...options, samples: [question] }), {
      code: 'ERR_INVALID_PROMPT',
      message: /^samples\.prompts\[0\]: messages need a chat template/,
    })
  })

  it('are refused with the prompt that is wrong', async () => {
    const wrong: [TrainerOptions['samples'], string, RegExp][] = [
      [['word '.repeat(300)], 'ERR_CONTEXT_FULL', /^samples\.prompts\[0\]: the prompt has \d+ tokens, .* holds 128/],
      [
        ['a', [{ role: 'human', content: 'x' } as never]],
        'ERR_INVALID_PROMPT',
        /^samples\.prompts\[1\]: the prompt's messages\[0\]\.role/,
      ],
    ]
    for (const [given, code, message] of wrong)
      await assert.rejects(train(tinyOptions(scratchFolder(), { samples: given })), { code, message })
  })
})
