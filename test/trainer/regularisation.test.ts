import assert from 'node:assert/strict'
import { Trainer, type TrainerOptions } from '../../lib/index.ts'
import { scratchFolder, tinyOptions, train, writeConversations } from './runs.ts'

/** The losses of a short run. */
async function losses(changes: Partial<TrainerOptions>): Promise<{ steps: number[]; evals: number[] }> {
  const folder = scratchFolder()
  const eval_ = writeConversations(folder, 5, 'eval.jsonl')
  const data = { train: writeConversations(folder, 24), eval: eval_ }
  const { history } = await train(tinyOptions(folder, { data, epochs: 1, warmupSteps: 0, ...changes }))
  return { steps: history.steps.map(({ loss }) => loss), evals: history.evals.map(({ loss }) => loss) }
}

function assertClose(found: number[], expected: number[]): void {
  assert.equal(found.length, expected.length)
  for (const [i, loss] of found.entries())
    assert.ok(Math.abs(loss - expected[i]!) < 1e-4 * expected[i]!, `${found} instead of ${expected}`)
}

describe('noise and dropout in a run', () => {
  const random = { neftuneAlpha: 50, embeddingDropout: 0.2, residualDropout: [0.1, 0.3] as [number, number] }

  it('do not depend on micro-batches, and follow the seed', async () => {
    const plain = await losses({})
    const whole = await losses({ ...random, microBatchTokens: 4096 })
    assertClose((await losses({ ...random, microBatchTokens: 64 })).steps, whole.steps)
    assert.ok(Math.abs(whole.steps[0]! - plain.steps[0]!) > 1e-3 * plain.steps[0]!, 'nothing was random')
    assert.notDeepEqual((await losses({ ...random, microBatchTokens: 4096, seed: 43 })).steps, whole.steps)
    // Before the first step both models are the same, and evaluation is never disturbed.
    assert.equal(whole.evals[0], plain.evals[0])
  })
})

describe('objectives in a run', () => {
  it('are what steps report, and evaluation stays cross-entropy', async () => {
    const plain = await losses({ maxSteps: 1 })
    for (const change of [{ loss: 'dft' }, { labelSmoothing: 0.2 }, { zLoss: 0.01 }] as const) {
      const { steps, evals } = await losses({ ...change, maxSteps: 1 })
      assert.ok(Math.abs(steps[0]! - plain.steps[0]!) > 1e-3, JSON.stringify(change))
      assert.equal(evals[0], plain.evals[0])
    }
  })
})

describe('a preset in a run', () => {
  it('is shown by plan, and its length gives way to the model’s context', async () => {
    const options = tinyOptions(scratchFolder(), { preset: 'smol' })
    const plan = await new Trainer(options).plan()
    assert.equal(plan.preset!.name, 'smol')
    assert.deepEqual(plan.preset!.sets, { schedule: 'cosine', warmupRatio: 0.1, maxLength: 8192 })
    assert.deepEqual(plan.preset!.overridden, ['learningRate', 'batchSize', 'epochs'])
    assert.equal(plan.longest.tokens <= 128, true)
  })
})
