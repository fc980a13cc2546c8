/** Runs with an adapter: what is trained, what is written, and going on from it. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { loadModel, Trainer, type TrainerOptions } from '../../lib/index.ts'
import { readTensors } from '../parity/golden-file.ts'
import { scratchFolder, tinyOptions, train, writeConversations } from './runs.ts'

type Values = ReturnType<typeof readTensors>['tensors']

/** A checkpoint with random weights, made by a run of one step. */
async function baseFolder(folder: string): Promise<string> {
  const output = join(folder, 'base')
  await train(tinyOptions(folder, { output, maxSteps: 1 }))
  return output
}

function loraOptions(folder: string, model: string, changes: Partial<TrainerOptions> = {}): TrainerOptions {
  return tinyOptions(folder, { model, output: join(folder, 'adapter'), adapter: { type: 'lora', rank: 4 }, ...changes })
}

const configOf = (folder: string) => JSON.parse(readFileSync(join(folder, 'adapter_config.json'), 'utf8'))
const tensorsOf = (folder: string): Values => readTensors(join(folder, 'adapter_model.safetensors')).tensors

describe('Trainer with an adapter', function () {
  this.timeout(60_000)

  it('trains the adapter alone and writes it as PEFT does', async () => {
    const folder = scratchFolder()
    const model = await baseFolder(folder)
    const before = readFileSync(join(model, 'model.safetensors'))
    const trainer = new Trainer(loraOptions(folder, model, { evalEvery: 2, data: { ...evaluated(folder) } }))
    const plans: { parameters: number; trainable: number; memory: { gradients: number; optimizer: number } }[] = []
    trainer.on('plan', (plan) => plans.push(plan))
    const result = await trainer.fit()
    const { hidden_size: h, intermediate_size: i } = JSON.parse(readFileSync(join(model, 'config.json'), 'utf8'))
    // q and o are [32, 32], k and v [16, 32], gate and up [48, 32], down [32, 48]; two layers.
    const expected = 2 * 4 * (2 * (h + h) + 2 * (h + h / 2) + 2 * (h + i) + (i + h))
    assert.equal(plans[0]!.trainable, expected)
    assert.ok(plans[0]!.parameters > 2048 * h + expected)
    assert.ok(plans[0]!.memory.gradients < 4 * expected + 1024)
    assert.ok(plans[0]!.memory.optimizer < 8 * expected + 2048)
    assert.ok(result.history.evals.at(-1)!.loss < result.history.evals[0]!.loss)

    assert.deepEqual(readFileSync(join(model, 'model.safetensors')), before)
    const output = join(folder, 'adapter')
    const files = readdirSync(output).filter((name) => name !== 'metrics.jsonl')
    assert.deepEqual(files.sort(), [
      ...['adapter_config.json', 'adapter_model.safetensors', 'chat_template.jinja'],
      ...['special_tokens_map.json', 'tokenizer.json', 'tokenizer_config.json'],
    ])
    const config = configOf(output)
    assert.equal(config.base_model_name_or_path, model)
    assert.equal(config.peft_type, 'LORA')
    assert.equal(config.r, 4)
    assert.equal(config.lora_alpha, 4)
    assert.equal(config.target_modules.length, 14)
    assert.ok(config.target_modules.includes('model.layers.1.mlp.down_proj'))
    const tensors = tensorsOf(output)
    assert.equal(tensors.size, 28)
    for (const [name, values] of tensors)
      assert.ok(
        values.some((value) => value !== 0),
        name,
      )
  })

  it('goes on from an adapter, and generates with it', async () => {
    const folder = scratchFolder()
    const model = await baseFolder(folder)
    await train(loraOptions(folder, model, { adapter: { type: 'lora', rank: 4, alpha: 8, dora: true } }))
    const adapter = join(folder, 'adapter')
    const messages = [{ role: 'user' as const, content: 'Tell me about tea number 3.' }]
    const answers: string[] = []
    for (const from of [model, adapter]) {
      const loaded = await loadModel(from, { device: 'cpu', precision: 'float32' })
      answers.push((await loaded.generate(messages, { maxNewTokens: 12 })).text)
      loaded.close()
    }
    assert.notEqual(answers[0], answers[1])
    // The base's stop tokens are not in the adapter's folder.
    const stops = async (from: string) => {
      const loaded = await loadModel(from, { device: 'cpu', precision: 'float32' })
      loaded.close()
      return loaded.tokenizer.stops
    }
    assert.deepEqual(await stops(adapter), await stops(model))

    // A rate of next to nothing: the loss starts where the first run ended, and the weights stay.
    const { adapter: _, ...options } = loraOptions(folder, adapter, {
      output: join(folder, 'again'),
      learningRate: 1e-9,
      data: evaluated(folder),
      maxSteps: 1,
    })
    const second = await train(options)
    const { loss } = second.history.evals[0]!
    const firstLoss = (await train({ ...options, output: join(folder, 'thrice') })).history.evals[0]!.loss
    assert.equal(loss, firstLoss)
    const [old, now] = [tensorsOf(adapter), tensorsOf(join(folder, 'again'))]
    for (const [name, values] of old)
      for (const [index, value] of values.entries()) assert.ok(Math.abs(now.get(name)![index]! - value) < 1e-6, name)
    const { base_model_name_or_path: base, ...config } = configOf(join(folder, 'again'))
    const { base_model_name_or_path: oldBase, ...oldConfig } = configOf(adapter)
    assert.equal(base, oldBase)
    assert.deepEqual(config, oldConfig)
  })

  it('dropout and micro-batches: the update does not depend on how conversations are packed', async () => {
    const folder = scratchFolder()
    const model = await baseFolder(folder)
    const results: Values[] = []
    for (const microBatchTokens of [128, 1024]) {
      const output = join(folder, `out-${microBatchTokens}`)
      const adapter = { type: 'lora' as const, rank: 4, dropout: 0.3, init: 'default' as const }
      await train(loraOptions(folder, model, { output, adapter, microBatchTokens, maxSteps: 3, learningRate: 1e-3 }))
      results.push(tensorsOf(output))
    }
    for (const [name, values] of results[0]!) {
      const other = results[1]!.get(name)!
      let [difference, norm] = [0, 0]
      for (const [index, value] of values.entries()) {
        difference += (value - other[index]!) ** 2
        norm += value ** 2
      }
      assert.ok(Math.sqrt(difference / norm) < 1e-3, `${name}: ${Math.sqrt(difference / norm)}`)
    }
  })

  it('LoRA+ moves B by its ratio: plain SGD, one step', async () => {
    const folder = scratchFolder()
    const model = await baseFolder(folder)
    const lengths: number[] = []
    for (const loraPlusRatio of [1, 16]) {
      const output = join(folder, `ratio-${loraPlusRatio}`)
      const changes = { optimizer: 'sgd', schedule: 'constant', warmupSteps: 0, maxSteps: 1, output } as const
      await train(loraOptions(folder, model, { ...changes, adapter: { type: 'lora', rank: 4, loraPlusRatio } }))
      let squares = 0
      for (const [name, values] of tensorsOf(output))
        if (name.endsWith('lora_B.weight')) for (const value of values) squares += value ** 2
      lengths.push(Math.sqrt(squares))
    }
    assert.ok(Math.abs(lengths[1]! / lengths[0]! - 16) < 1e-3, `${lengths}`)
  })

  it('PiSSA: an adapter of twice the rank to the weights as they were, which generates as the run ended', async () => {
    const folder = scratchFolder()
    const model = await baseFolder(folder)
    const data = evaluated(folder)
    const adapter = { type: 'lora', rank: 4, alpha: 8, init: 'pissa' } as const
    const result = await train(loraOptions(folder, model, { adapter, data, maxSteps: 4, learningRate: 1e-3 }))
    const output = join(folder, 'adapter')
    assert.equal(configOf(output).r, 8)
    assert.equal(configOf(output).lora_alpha, 16)
    assert.equal(configOf(output).init_lora_weights, true)
    // Loaded beside the original weights it computes what the run computed with what PiSSA had left of them.
    const options = { model: output, output: join(folder, 'again'), data, maxSteps: 1, learningRate: 1e-9 }
    const again = await train(tinyOptions(folder, options))
    const [ended, begins] = [result.history.evals.at(-1)!.loss, again.history.evals[0]!.loss]
    assert.ok(Math.abs(begins / ended - 1) < 1e-5, `${begins} ${ended}`)
    assert.ok(Math.abs(ended / result.history.evals[0]!.loss - 1) > 1e-3)
  })

  it('refuses what cannot be, with the field and a way out', async () => {
    const folder = scratchFolder()
    const model = await baseFolder(folder)
    const rejects = (changes: Partial<TrainerOptions>, message: RegExp, code = 'ERR_INVALID_OPTION') =>
      assert.rejects(new Trainer(loraOptions(folder, model, changes)).plan(), (error: Error & { code: string }) => {
        assert.match(error.message, message)
        assert.equal(error.code, code)
        return true
      })
    const lora = (changes: object) => ({ adapter: { type: 'lora' as const, ...changes } })
    await rejects(
      lora({ targets: ['q_prj'] }),
      /adapter\.targets: no projection is called 'q_prj'; did you mean 'q_proj'/,
    )
    await rejects(lora({ targets: ['lm_head'] }), /beside the projections of the layers only/)
    await rejects(lora({ targets: '.*nothing' }), /adapter\.targets/)
    await rejects(lora({ targets: 'q_proj' }), /no whole name matches .*'q_proj'; give a list .*\["q_proj"\]/)
    await rejects(lora({ targets: '(' }), /no regular expression/)
    await rejects(lora({ init: 'pissa', rank: 17 }), /has 16 of them, fewer than the rank 17/)
    await rejects(lora({ targets: ['q_proj'], rankPattern: { v_proj: 2 } }), /adapter\.rankPattern/)
    const random = tinyOptions(folder).model
    await rejects({ model: random }, /needs a checkpoint/)

    await train(loraOptions(folder, model, { maxSteps: 1 }))
    const adapter = join(folder, 'adapter')
    await rejects(
      { model: adapter, output: join(folder, 'x'), ...lora({ rank: 8 }) },
      /adapter\.rank: model is an adapter already/,
    )
    await rejects({ model: adapter, ...lora({}) }, /overwrite it/, 'ERR_OUTPUT_IS_SOURCE')
    const added = { adapter: undefined, addTokens: ['<new>'], output: join(folder, 'x') }
    await rejects({ model: adapter, ...added }, /addTokens: model is an adapter, which has no rows for new tokens/)
  })
})

function evaluated(folder: string): TrainerOptions['data'] {
  return { train: writeConversations(folder, 24), eval: writeConversations(folder, 6, 'eval.jsonl') }
}
