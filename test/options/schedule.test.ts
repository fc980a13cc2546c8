import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { learningRateAt, type Schedule, warmupStepsOf } from '../../lib/trainer/schedule.ts'

interface Golden {
  cases: (Schedule & { rates: number[] })[]
  warmupRatios: { totalSteps: number; ratio: number; warmupSteps: number }[]
}

const golden: Golden = JSON.parse(readFileSync(new URL('../golden/schedule.json', import.meta.url), 'utf8'))

describe('the learning rate', () => {
  for (const { rates, ...run } of golden.cases) {
    const { schedule, totalSteps, warmupSteps, minLearningRate } = run
    it(`is Transformers' for ${schedule}, ${totalSteps} steps, warmup ${warmupSteps}, minimum ${minLearningRate}`, () => {
      assert.equal(rates.length, totalSteps)
      rates.forEach((rate, step) => {
        const ours = learningRateAt(step, run)
        // A few units in the last place: the same formula, another order of the products.
        assert.ok(Math.abs(ours - rate) <= 1e-15 * run.learningRate, `step ${step}: ${ours}, not ${rate}`)
      })
    })
  }

  it('ends at the minimum and stays there', () => {
    for (const schedule of ['cosine', 'linear'] as const) {
      const run = { totalSteps: 10, warmupSteps: 2, schedule, learningRate: 1e-3, minLearningRate: 1e-4 }
      assert.ok(Math.abs(learningRateAt(10, run) - 1e-4) < 1e-18, schedule)
      assert.ok(learningRateAt(9, run) > 1e-4, schedule)
    }
    const run = {
      totalSteps: 10,
      warmupSteps: 2,
      schedule: 'linear',
      learningRate: 1e-3,
      minLearningRate: 1e-4,
    } as const
    assert.equal(learningRateAt(15, run), 1e-4)
  })
})

describe('the warmup', () => {
  it("rounds a share of the steps up, as Transformers' TrainingArguments", () => {
    for (const { totalSteps, ratio, warmupSteps } of golden.warmupRatios)
      assert.equal(warmupStepsOf({ ratio }, totalSteps), warmupSteps, `${ratio} of ${totalSteps}`)
  })

  it('takes a number of steps as it is', () => {
    assert.equal(warmupStepsOf({ steps: 7 }, 5), 7)
  })
})
