import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { EvalEvent, StepEvent, TrainerOptions, TrainingPlan, Warning } from '../../lib/index.ts'
import { loadModel, Trainer } from '../../lib/index.ts'
import { scratchFolder, tinyOptions, train, writeConversations } from './runs.ts'

describe('fit', () => {
  it('trains, tells every step and leaves a checkpoint that generates', async () => {
    const folder = scratchFolder()
    const options = tinyOptions(folder, {
      data: { train: writeConversations(folder, 24), eval: writeConversations(folder, 8, 'eval.jsonl') },
      epochs: 6,
    })
    const trainer = new Trainer(options)
    const steps: StepEvent[] = []
    const evals: EvalEvent[] = []
    const warnings: Warning[] = []
    const order: string[] = []
    let plan: TrainingPlan | undefined
    trainer.on('plan', (event) => {
      plan = event
      order.push('plan')
    })
    trainer.on('start', () => order.push('start'))
    trainer.on('step', (event) => steps.push(event))
    trainer.on('eval', (event) => evals.push(event))
    trainer.on('checkpoint', () => order.push('checkpoint'))
    trainer.on('warning', (event) => warnings.push(event))
    trainer.on('end', () => order.push('end'))
    const result = await trainer.fit()

    assert.deepEqual(order, ['plan', 'start', 'checkpoint', 'end'])
    assert.equal(plan?.steps, 18)
    assert.equal(steps.length, 18)
    assert.deepEqual(
      steps.map(({ step }) => step),
      [...Array(18).keys()].map((i) => i + 1),
    )
    assert.equal(steps.at(-1)!.epoch, 6)
    assert.equal(steps[0]!.learningRate, 0, 'the warmup starts from 0')
    const total = steps.reduce((sum, { totalTokens }) => sum + totalTokens, 0)
    assert.equal(total, 6 * plan!.tokens)
    assert.equal(result.totalTokens, total)
    const microBatches = steps.reduce((sum, event) => sum + event.microBatches, 0)
    assert.ok(microBatches > 18)
    assert.ok(Math.abs(result.packing.fill - total / (microBatches * 128)) < 1e-12)
    assert.ok(result.packing.padded > 1 && plan!.packing.padded > 1)
    assert.equal(plan!.microBatches, Math.round(plan!.tokens / (128 * plan!.packing.fill)))
    assert.equal(
      steps.reduce((sum, { supervisedTokens }) => sum + supervisedTokens, 0),
      6 * plan!.supervisedTokens,
    )
    assert.deepEqual(
      evals.map(({ step }) => step),
      [0, 3, 6, 9, 12, 15, 18],
    )
    assert.ok(evals.at(-1)!.loss < 0.5 * evals[0]!.loss, `${evals[0]!.loss} to ${evals.at(-1)!.loss}`)
    assert.ok(evals.at(-1)!.tokenAccuracy > evals[0]!.tokenAccuracy)
    assert.ok(warnings.some(({ message }) => message.includes('chatml')))
    assert.deepEqual(result.history.steps, steps)
    assert.deepEqual(result.data, { ...plan!.data })

    const lines = readFileSync(result.metrics, 'utf8').trim().split('\n')
    const events = lines.map((line) => JSON.parse(line).event)
    assert.equal(events.filter((event) => event === 'step').length, 18)
    assert.deepEqual(events.slice(0, 3), ['plan', 'warning', 'start'])
    assert.equal(events.filter((event) => event === 'warning').length, warnings.length)
    assert.equal(events.at(-1), 'end')

    const files = readdirSync(result.output)
    for (const file of ['config.json', 'model.safetensors', 'tokenizer.json', 'generation_config.json']) {
      assert.ok(files.includes(file), file)
    }
    const model = await loadModel(result.output, { device: 'cpu', precision: 'float32' })
    assert.deepEqual(model.warnings, [], 'the template went with the checkpoint')
    const answer = await model.generate([{ role: 'user', content: 'Tell me about tea number 3.' }], {
      maxNewTokens: 60,
    })
    assert.ok(answer.tokens.length > 0)
    model.close()
  })

  it('prepares the same data once', async () => {
    const options = tinyOptions(scratchFolder())
    const cached: (true | undefined)[] = []
    const plans: TrainingPlan[] = []
    for (const changes of [{}, { batchSize: 4 }, { cache: false }]) {
      const trainer = new Trainer({ ...options, ...changes })
      trainer.on('prepare', (event) => {
        if (event.stage === 'data' && event.done === 24) cached.push(event.cached)
      })
      plans.push(await trainer.plan())
    }
    assert.deepEqual(
      cached.filter((value, index) => value !== cached[index - 1] || index === 0),
      [undefined, true, undefined],
    )
    for (const plan of plans) assert.deepEqual([plan.tokens, plan.data], [plans[0]!.tokens, plans[0]!.data])
  })

  it('warns where the warmup takes every step', async () => {
    const codes = async (changes: Partial<TrainerOptions>) => {
      const found: string[] = []
      const trainer = new Trainer(tinyOptions(scratchFolder(), changes))
      trainer.on('warning', ({ code, message }) => found.push(`${code} ${message}`))
      await trainer.plan()
      return found.filter((warning) => warning.startsWith('WARN_ONLY_WARMUP')).join('\n')
    }
    assert.match(
      await codes({ maxSteps: 1 }),
      /only step of this run is warmup.* is 0 instead of 0\.01.*warmupSteps to 0/,
    )
    assert.match(
      await codes({ maxSteps: 4, warmupSteps: 5 }),
      /All 4 steps are warmup.* reaches 0\.006 instead of 0\.01/,
    )
    assert.equal(await codes({ maxSteps: 1, warmupSteps: 0 }), '')
    assert.equal(await codes({ maxSteps: 2, warmupSteps: 1 }), '')
  })

  it('gives the same bits from the same seed, and others from another', async () => {
    const weights = async (seed: number) => {
      const folder = scratchFolder()
      const { output } = await train(tinyOptions(folder, { seed }))
      return readFileSync(join(output, 'model.safetensors'))
    }
    const [first, again, other] = [await weights(1), await weights(1), await weights(2)]
    assert.ok(first.equals(again))
    assert.ok(!first.equals(other))
  })

  it('does not depend on microBatchTokens', async () => {
    const losses = async (microBatchTokens: number) => {
      const { history } = await train(tinyOptions(scratchFolder(), { microBatchTokens }))
      return history.steps.map(({ loss }) => loss)
    }
    const [small, large] = [await losses(40), await losses(4096)]
    for (const [i, loss] of small.entries()) assert.ok(Math.abs(loss - large[i]!) < 2e-5 * loss, `${loss} ${large[i]}`)
  })

  it('fills steps to batchTokens, and stops at maxSteps', async () => {
    const { epochs: _, batchSize: __, ...options } = tinyOptions(scratchFolder(), { batchTokens: 200, maxSteps: 9 })
    const result = await train(options)
    assert.equal(result.steps, 9)
    for (const { totalTokens } of result.history.steps) assert.ok(totalTokens <= 200)
  })

  it('trains on plain text, all tokens of it', async () => {
    const folder = scratchFolder()
    const path = join(folder, 'text.jsonl')
    const rows = Array.from({ length: 12 }, (_, i) => JSON.stringify({ text: `One more line of text, number ${i}.` }))
    writeFileSync(path, rows.join('\n'))
    const { history } = await train(tinyOptions(folder, { data: { train: path }, trainOn: 'all', epochs: 8 }))
    // Every token but the first of each document is somebody's target.
    for (const step of history.steps) assert.ok(step.supervisedTokens >= step.totalTokens - 8)
    assert.ok(history.steps.at(-1)!.loss < 0.7 * history.steps[0]!.loss)
  })

  it('evaluates every so many steps, and splits the evaluation off', async () => {
    const { history, data } = await train(
      tinyOptions(scratchFolder(), {
        data: { train: writeConversations(scratchFolder(), 40), evalFraction: 0.25 },
        evalEvery: 2,
        maxSteps: 5,
      }),
    )
    assert.deepEqual(
      history.evals.map(({ step }) => step),
      [0, 2, 4, 5],
    )
    assert.equal(data.used + data.evaluated, 40)
    assert.ok(data.evaluated > 0)
  })

  it('plans without training', async () => {
    const folder = scratchFolder()
    const plan = await new Trainer(tinyOptions(folder)).plan()
    assert.equal(plan.steps, 6)
    assert.ok(plan.estimatedSeconds! > 0)
    assert.ok(plan.memory.total > 0)
    assert.ok(!existsSync(join(folder, 'out', 'metrics.jsonl')))
    assert.ok(!existsSync(join(folder, 'out', 'config.json')))
  })
})
