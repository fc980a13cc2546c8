import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Tokenizer } from '../../lib/chat/tokenizer.ts'
import { embeddingRows } from '../../lib/checkpoint/embedding.ts'
import { openCheckpoint } from '../../lib/checkpoint/open.ts'
import { loadModel, Trainer, type TrainerOptions } from '../../lib/index.ts'
import { scratchFolder, tinyConfig, tinyOptions, tokenizer, train } from './runs.ts'

const tokens = ['<|alpha|>', '<|omega|>']
const first = tinyConfig.vocab_size

/** A checkpoint that training has barely touched. */
async function start(folder: string, tied = true): Promise<string> {
  const config = { ...tinyConfig, tie_word_embeddings: tied }
  const model = { config, tokenizer, init: 'random' as const }
  await train(tinyOptions(folder, { model, output: join(folder, 'start'), learningRate: 1e-30, maxSteps: 1 }))
  return join(folder, 'start')
}

const template = `{% for m in messages %}<|alpha|>{{ m.role }}: {{ m.content }}<|omega|>{% endfor %}{% if add_generation_prompt %}<|alpha|>assistant: {% endif %}`

async function run(changes: Partial<TrainerOptions>) {
  const folder = scratchFolder()
  const model = await start(folder)
  const chatTemplate = join(folder, 'template.jinja')
  writeFileSync(chatTemplate, template)
  const options = tinyOptions(folder, {
    model,
    chatTemplate,
    addTokens: tokens,
    output: join(folder, 'out'),
    ...changes,
  })
  const trainer = new Trainer(options)
  const warnings: string[] = []
  trainer.on('warning', ({ code, message }) => warnings.push(`${code} ${message}`))
  const plan = await trainer.plan()
  const result = await trainer.fit()
  return { before: await openCheckpoint(model), after: await openCheckpoint(result.output), plan, result, warnings }
}

describe('new tokens', () => {
  it('alone train: every other number of the model stays, and the checkpoint has them', async () => {
    const { before, after, plan, warnings } = await run({ train: 'new-tokens' })
    assert.equal(plan.trainable, 2 * 32)
    assert.deepEqual(plan.newTokens, [
      { text: '<|alpha|>', id: first },
      { text: '<|omega|>', id: first + 1 },
    ])
    assert.ok(
      warnings.some((text) => /^WARN_TOKENS_ADDED New tokens: <\|alpha\|> \(2048\), <\|omega\|> \(2049\)/.test(text)),
    )
    assert.equal(after.spec.vocabSize, first + 2)
    const ids = Array.from({ length: first }, (_, id) => id)
    const old = await embeddingRows(before, ids)
    assert.deepEqual(await embeddingRows(after, ids), old)
    const mean = Float64Array.from({ length: 32 }, (_, i) => old.reduce((sum, row) => sum + row[i]!, 0) / first)
    const rows = await embeddingRows(after, [first, first + 1])
    for (const row of rows)
      assert.ok(
        row.some((value, i) => Math.abs(value - mean[i]!) > 1e-4),
        'has not moved',
      )
    assert.notDeepEqual(rows[0], rows[1])
    const config = JSON.parse(readFileSync(join(after.folder, 'config.json'), 'utf8'))
    assert.equal(config.vocab_size, first + 2)
  })

  it('start as the mean of the rows before them', async () => {
    const { before, after } = await run({ train: 'new-tokens', learningRate: 1e-30, maxSteps: 1 })
    const old = await embeddingRows(
      before,
      Array.from({ length: first }, (_, id) => id),
    )
    for (const row of await embeddingRows(after, [first, first + 1]))
      for (const [i, value] of row.entries())
        assert.ok(Math.abs(value - old.reduce((sum, other) => sum + other[i]!, 0) / first) < 1e-8)
  })

  it('are control tokens of the exported tokenizer, and end a turn there', async () => {
    const { result, after } = await run({})
    const exported = await Tokenizer.load(after.folder)
    assert.equal(exported.vocabSize, first + 2)
    const { ids } = await exported.encode('a<|alpha|>b')
    assert.ok([...ids].includes(first))
    assert.deepEqual(
      exported.added.slice(-2).map(({ text, id, special }) => [text, id, special]),
      tokens.map((text, index) => [text, first + index, true]),
    )
    const model = await loadModel(result.output, { device: 'cpu', threads: 2 })
    await model.generate([{ role: 'user', content: 'Hello.' }], { maxNewTokens: 3 })
    model.close()
  })

  it('that are there already are refused, and so are ways that have no room for them', async () => {
    const folder = scratchFolder()
    const existing = JSON.parse(readFileSync(join(tokenizer, 'tokenizer.json'), 'utf8')).added_tokens[0].content
    await assert.rejects(new Trainer(tinyOptions(folder, { addTokens: existing })).plan(), {
      code: 'ERR_INVALID_OPTION',
      message: /is a token already/,
    })
    const refused = (changes: Partial<TrainerOptions>, message: RegExp) =>
      assert.throws(() => new Trainer(tinyOptions(folder, changes)), { code: 'ERR_INVALID_OPTION', message })
    refused({ train: 'new-tokens' }, /give addTokens/)
    refused({ addTokens: ['<|a|>', '<|a|>'] }, /same token twice/)
    refused({ addTokens: '<|a|>', adapter: { type: 'lora' } }, /excludes adapter/)
  })
})
