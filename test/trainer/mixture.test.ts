import assert from 'node:assert/strict'
import { join } from 'node:path'
import { Trainer } from '../../lib/index.ts'
import { scratchFolder, tinyOptions, writeConversations } from './runs.ts'

describe('the plan of a mixture', () => {
  it('counts what an epoch draws, and warns of what a run never does', async () => {
    const folder = scratchFolder()
    const many = writeConversations(folder, 40, 'many.jsonl')
    const few = writeConversations(folder, 4, 'few.jsonl')
    const plan = async (epochs: number, train: (string | { path: string; proportion: number })[]) => {
      const trainer = new Trainer(tinyOptions(folder, { epochs, data: { train }, output: join(folder, 'out') }))
      const warnings: string[] = []
      trainer.on('warning', ({ code, message }) => code === 'WARN_NEVER_DRAWN' && warnings.push(message))
      return { ...(await trainer.plan()), warnings }
    }
    const whole = await plan(1, [many, few])
    assert.deepEqual([whole.mixture, whole.conversations, whole.steps], [undefined, 44, 6])
    const mixture = [
      { path: many, proportion: 0.25 },
      { path: few, proportion: 3 },
    ]
    const mixed = await plan(2, mixture)
    assert.deepEqual(mixed.mixture, [
      { path: many, proportion: 0.25, conversations: 40, drawnPerEpoch: 10, neverDrawn: 20 },
      { path: few, proportion: 3, conversations: 4, drawnPerEpoch: 12, neverDrawn: 0 },
    ])
    // 22 conversations in steps of 8, twice.
    assert.deepEqual([mixed.conversations, mixed.stepsPerEpoch, mixed.steps], [44, 3, 6])
    assert.ok(mixed.tokens < whole.tokens && mixed.supervisedTokens < mixed.tokens)
    assert.equal(mixed.warnings.length, 1)
    assert.match(
      mixed.warnings[0]!,
      /many\.jsonl has the proportion 0\.25: 20 of 40 conversations are never drawn in 2 epochs/,
    )
    assert.deepEqual((await plan(4, mixture)).warnings, [])
  })

  it('is trained as planned', async () => {
    const folder = scratchFolder()
    const train = [{ path: writeConversations(folder, 6, 'six.jsonl'), proportion: 1.5 }]
    const result = await new Trainer(tinyOptions(folder, { epochs: 1, batchSize: 4, data: { train } })).fit()
    assert.deepEqual([result.steps, result.data.used], [3, 6])
  })
})
