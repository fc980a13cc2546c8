/** Merging an adapter into its base: what is written is one checkpoint that computes the same. */
import assert from 'node:assert/strict'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { mergeAdapter } from '../../lib/export/merge.ts'
import { loadModel } from '../../lib/index.ts'
import { tunesmithHere as tunesmith } from '../cli/spawn.ts'
import { scratchFolder, tinyOptions, train } from '../trainer/runs.ts'

describe('merging', function () {
  this.timeout(120_000)
  let folder: string
  let base: string
  let adapter: string

  before(async () => {
    folder = scratchFolder()
    base = join(folder, 'base')
    adapter = join(folder, 'adapter')
    await train(tinyOptions(folder, { output: base, maxSteps: 1 }))
    await train(
      tinyOptions(folder, { model: base, output: adapter, adapter: { type: 'lora', rank: 4, alpha: 16, dora: true } }),
    )
  })

  it('writes a checkpoint that computes what base and adapter compute', async () => {
    const output = join(folder, 'merged')
    const { comparison, dtype } = await mergeAdapter({ adapter, output, device: 'cpu', threads: 2 })
    assert.equal(dtype, 'float32')
    assert.equal(comparison.prompts, 6)
    assert.ok(comparison.tokens > 50)
    assert.ok(comparison.largestLogit > 0.1)
    assert.ok(comparison.largestDifference < 1e-5 * comparison.largestLogit + 1e-6, `${comparison.largestDifference}`)
    assert.ok(comparison.largestDifference > 0)
    assert.equal(comparison.changed, 0)
    assert.ok(!existsSync(join(output, 'adapter_config.json')))
    const messages = [{ role: 'user' as const, content: 'Tell me about tea.' }]
    const answers = []
    for (const from of [adapter, output, base]) {
      const model = await loadModel(from, { device: 'cpu', precision: 'float32' })
      answers.push((await model.generate(messages, { maxNewTokens: 12 })).text)
      model.close()
    }
    assert.equal(answers[1], answers[0])
    assert.notEqual(answers[2], answers[0])
  })

  it('tells what a narrower type costs, on prompts of a file', async () => {
    const prompts = join(folder, 'prompts.txt')
    writeFileSync(prompts, 'What is tea?\n\nWhere is the moon?\n')
    const output = join(folder, 'narrow')
    const options = { adapter, output, dtype: 'bfloat16', prompts, device: 'cpu', threads: 2 } as const
    const { comparison } = await mergeAdapter(options)
    assert.equal(comparison.prompts, 2)
    assert.ok(comparison.largestDifference > 1e-4, `${comparison.largestDifference}`)
    assert.ok(comparison.largestDifference < 0.1 * comparison.largestLogit)
    assert.equal(JSON.parse(readFileSync(join(output, 'config.json'), 'utf8')).torch_dtype, 'bfloat16')
  })

  it('merges into a quantised base as the adapter has seen it', async () => {
    const comparisons = []
    for (const quantization of [undefined, 'nf4'] as const) {
      const output = join(folder, `quantised-${quantization}`)
      comparisons.push((await mergeAdapter({ adapter, output, quantization, device: 'cpu', threads: 2 })).comparison)
    }
    const weights = await Promise.all(
      ['undefined', 'nf4'].map((name) => readFileSync(join(folder, `quantised-${name}`, 'model.safetensors'))),
    )
    assert.notDeepEqual(weights[0], weights[1])
    for (const { largestDifference, largestLogit } of comparisons)
      assert.ok(largestDifference < 1e-5 * largestLogit + 1e-6, `${largestDifference}`)
  })

  it('refuses what is no adapter, and the folders that it reads as output', async () => {
    await assert.rejects(mergeAdapter({ adapter: base, output: join(folder, 'x') }), { code: 'ERR_ADAPTER_CONFIG' })
    await assert.rejects(mergeAdapter({ adapter, output: adapter }), { code: 'ERR_OUTPUT_IS_SOURCE' })
    await assert.rejects(mergeAdapter({ adapter, output: base }), { code: 'ERR_OUTPUT_IS_SOURCE' })
    await assert.rejects(mergeAdapter({ adapter, output: join(folder, 'x'), prompts: join(folder, 'none') }), {
      code: 'ERR_DATA_NOT_FOUND',
    })
  })

  it('is a command', async () => {
    const output = join(folder, 'by-command')
    const { code, stdout, stderr } = await tunesmith([
      'export',
      '--merge',
      adapter,
      '--output',
      output,
      '--device',
      'cpu',
    ])
    assert.equal(code, 0, stderr)
    assert.match(stdout, /merged checkpoint \(float32\) in .*by-command\n.*largest difference of a logit/)
    const wrong = await tunesmith(['export', '--merge', adapter, '--output', output, '--dtype', 'int8'])
    assert.equal(wrong.code, 2)
    assert.match(wrong.stderr, /--dtype is float32, float16, bfloat16; found 'int8'/)
  })
})
