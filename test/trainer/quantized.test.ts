/** QLoRA runs: the adapter trains beside a base in 4 bits. */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Trainer, type TrainerOptions } from '../../lib/index.ts'
import { readTensors } from '../parity/golden-file.ts'
import { scratchFolder, tinyOptions, train, writeConversations } from './runs.ts'

/** A checkpoint with random weights, made by a run of one step. */
async function baseFolder(folder: string): Promise<string> {
  const output = join(folder, 'base')
  await train(tinyOptions(folder, { output, maxSteps: 1 }))
  return output
}

function qloraOptions(folder: string, model: string, changes: Partial<TrainerOptions> = {}): TrainerOptions {
  return tinyOptions(folder, {
    model,
    output: join(folder, 'adapter'),
    adapter: { type: 'lora', rank: 4 },
    quantization: 'nf4',
    learningRate: 1e-2,
    ...changes,
  })
}

describe('Trainer with a quantised base', function () {
  this.timeout(60_000)

  it('trains an adapter that PEFT reads, and leaves the base', async () => {
    const folder = scratchFolder()
    const model = await baseFolder(folder)
    const before = readFileSync(join(model, 'model.safetensors'))
    const plans: { quantized: number; parameters: number }[] = []
    const trainer = new Trainer(
      qloraOptions(folder, model, {
        evalEvery: 2,
        data: { ...tinyOptions(folder).data, eval: writeConversations(folder, 4, 'eval.jsonl') },
      }),
    )
    trainer.on('plan', ({ memory }) => plans.push(memory))
    const { history } = await trainer.fit()
    assert.ok(history.evals.at(-1)!.loss < history.evals[0]!.loss)
    assert.ok(plans[0]!.quantized > 0)
    assert.deepEqual(readFileSync(join(model, 'model.safetensors')), before)
    const { tensors } = readTensors(join(folder, 'adapter', 'adapter_model.safetensors'))
    assert.equal(tensors.size, 28)
    for (const [name, values] of tensors)
      assert.ok(
        values.some((value) => value !== 0),
        name,
      )
    // On from it: the model is an adapter, and the option is not needed again.
    const { adapter: _, ...rest } = qloraOptions(folder, join(folder, 'adapter'), { output: join(folder, 'again') })
    const second = await train({ ...rest, maxSteps: 1 })
    assert.equal(second.steps, 1)
  })

  it('plans fewer bytes than in float, and a time', async () => {
    const folder = scratchFolder()
    const model = await baseFolder(folder)
    const planOf = (changes: Partial<TrainerOptions>) => new Trainer(qloraOptions(folder, model, changes)).plan()
    const float = await planOf({ quantization: undefined })
    for (const doubleQuantization of [true, false]) {
      const plan = await planOf({ doubleQuantization })
      assert.ok(plan.estimatedSeconds! > 0)
      assert.equal(plan.trainable, float.trainable)
      // 11,264 weights, of 4 bytes each in float.
      assert.ok(plan.memory.parameters + plan.memory.quantized < float.memory.parameters - 3 * 11_264)
    }
  })

  it('refuses to train what is quantised', async () => {
    const folder = scratchFolder()
    const model = await baseFolder(folder)
    await assert.rejects(new Trainer(qloraOptions(folder, model, { adapter: undefined })).fit(), {
      code: 'ERR_INVALID_OPTION',
      message: /quantization is 'nf4', but there is no adapter.*Add adapter/,
    })
    const refused = (changes: Partial<TrainerOptions>, message: RegExp) =>
      assert.throws(() => new Trainer(qloraOptions(folder, model, changes)), { code: 'ERR_INVALID_OPTION', message })
    refused(
      { quantization: undefined, doubleQuantization: true },
      /doubleQuantization has no effect without quantization/,
    )
    refused({ adapter: { type: 'lora', init: 'pissa' } }, /adapter\.init 'pissa' excludes quantization/)
    refused({ quantization: 'int4' as never }, /quantization.*'nf4'/)
  })

  it('names the tensor that is not finite', async () => {
    const folder = scratchFolder()
    const model = await baseFolder(folder)
    const path = join(model, 'model.safetensors')
    const bytes = readFileSync(path)
    const header = JSON.parse(bytes.subarray(8, 8 + Number(bytes.readBigUInt64LE())).toString())
    const name = 'model.layers.1.mlp.up_proj.weight'
    const { dtype, data_offsets: offsets } = header[name]
    const at = 8 + Number(bytes.readBigUInt64LE()) + offsets[0]
    if (dtype === 'F32') bytes.writeFloatLE(Number.NaN, at + 4 * 7)
    else bytes.writeUInt16LE(0x7fff, at + 2 * 7)
    writeFileSync(path, bytes)
    await assert.rejects(train(qloraOptions(folder, model)), {
      code: 'ERR_INVALID_WEIGHTS',
      message: /layers\.1\.mlp\.up\.weight: element 7 is -?nan/,
    })
  })
})
