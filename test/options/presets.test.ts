import assert from 'node:assert/strict'
import { parseOptions, type TrainerOptions } from '../../lib/trainer/options.ts'
import { type PresetName, presets } from '../../lib/trainer/presets.ts'

const least = { model: 'base', output: 'out', data: { train: 'train.jsonl' } }
const parse = (extra: Partial<TrainerOptions>) => parseOptions({ ...least, ...extra }, '/some/where')

describe('presets', () => {
  for (const name of Object.keys(presets) as PresetName[])
    it(`${name} is as good as its options written out`, () => {
      const { preset, ...with_ } = parse({ preset: name })
      const without = parse(presets[name].options as Partial<TrainerOptions>)
      assert.deepEqual(with_, without)
      assert.deepEqual(preset, { name, source: presets[name].source, sets: presets[name].options, overridden: [] })
    })

  it('have the numbers of their sources', () => {
    const { learningRate, minLearningRate, schedule, warmup, betas, weightDecay, residualDropout, batch, epochs } =
      parse({
        preset: 'lima',
      })
    assert.deepEqual([learningRate, minLearningRate, schedule, warmup], [1e-5, 1e-6, 'linear', { steps: 0 }])
    assert.deepEqual([betas, weightDecay, residualDropout], [[0.9, 0.95], 0.1, [0, 0.3]])
    assert.deepEqual([batch, epochs], [{ conversations: 32 }, 15])
    assert.equal(parse({ preset: 'tulu3' }).learningRate, 5e-6)
    assert.equal(parse({ preset: 'llama2' }).weightDecay, 0.1)
    assert.deepEqual(parse({ preset: 'zephyr' }).warmup, { ratio: 0.1 })
    assert.equal(parse({ preset: 'smol' }).learningRate, 3e-4)
  })

  it('give way key by key', () => {
    const { preset, learningRate, epochs, weightDecay } = parse({ preset: 'llama2', learningRate: 1e-4, epochs: 1 })
    assert.deepEqual([learningRate, epochs, weightDecay], [1e-4, 1, 0.1])
    assert.deepEqual(preset!.overridden, ['learningRate', 'epochs'])
    assert.deepEqual(Object.keys(preset!.sets), ['schedule', 'weightDecay', 'batchSize', 'maxLength', 'trainOn'])
    assert.equal(parse({ preset: 'llama2', learningRate: undefined }).learningRate, 2e-5)
  })

  it('give way in an adapter key by key too', () => {
    const adapter = { rank: 4 } as TrainerOptions['adapter']
    assert.deepEqual(parse({ preset: 'lora', adapter }).adapter, { type: 'lora', targets: 'all-linear', rank: 4 })
  })

  it('give way to what excludes their options, or leaves them without effect', () => {
    assert.deepEqual(parse({ preset: 'smol', batchTokens: 1000 }).batch, { tokens: 1000 })
    assert.deepEqual(parse({ preset: 'smol', warmupSteps: 7 }).warmup, { steps: 7 })
    const sgd = parse({ preset: 'lima', optimizer: 'sgd' })
    assert.deepEqual(sgd.preset!.overridden, ['betas'])
    assert.equal(parse({ preset: 'lima', schedule: 'constant' }).minLearningRate, 0)
    assert.equal(parse({ preset: 'lima', learningRate: 1e-7 }).minLearningRate, 0)
  })

  it('leave nothing behind where none is named', () => {
    assert.equal(parse({}).preset, undefined)
    assert.equal('preset' in parse({ preset: undefined }), false)
  })
})
