// Adapters against PEFT and PyTorch: 20 steps from the adapters that PEFT wrote, per kind, and what is written back.
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it } from 'mocha'
import { collate } from '../../lib/batch/collate.ts'
import { type Adapter, adapterTensors, engineAdapters } from '../../lib/checkpoint/adapter/adapter.ts'
import { adaptedModules, modelModules } from '../../lib/checkpoint/adapter/modules.ts'
import { openAdapter, openPeftConfig } from '../../lib/checkpoint/adapter/open.ts'
import { saveAdapter } from '../../lib/checkpoint/adapter/save.ts'
import { adapterSources, loadAdapter } from '../../lib/checkpoint/adapter/weights.ts'
import { loadParameters } from '../../lib/checkpoint/load.ts'
import { type Checkpoint, openCheckpoint } from '../../lib/checkpoint/open.ts'
import type { EngineOptions, MicroBatch, NativeEngine, ParameterGroup } from '../../lib/native/addon.ts'
import { addon } from '../../lib/native/load.ts'
import { exportedAdapter, startAdapter } from '../../lib/trainer/adapter.ts'
import { tokenizer } from '../trainer/runs.ts'
import { exactSettings, readParameters, relativeError, type Setting } from './engine.ts'
import { goldenPath, readTensors } from './golden-file.ts'

const steps = 20
const learningRate = 5e-3
const weightDecay = 0.1
const cases: Record<string, { ratio?: number; quantized?: boolean }> = {
  lora: {},
  rslora: {},
  dora: {},
  loraplus: { ratio: 8 },
  patterns: {},
  qlora: { quantized: true },
  qdora: { quantized: true },
}

/** The conversations of each step, all in one micro-batch. */
const batches: MicroBatch[] = (
  JSON.parse(readFileSync(goldenPath('lora/batches.json'), 'utf8')) as { ids: number[]; weights: number[] }[][]
).map((conversations) =>
  collate(
    conversations.map(({ ids, weights }, line) => ({
      ids: Int32Array.from(ids),
      weights: Float32Array.from(weights),
      source: { file: 'batches.json', line },
    })),
  ),
)

interface Loaded {
  checkpoint: Checkpoint
  adapter: Adapter
  engine: NativeEngine
}

async function load(
  folder: string,
  setting: Setting,
  { recompute = false, ratio = 1, quantized = false } = {},
): Promise<Loaded> {
  const checkpoint = await openCheckpoint(goldenPath('lora/base'))
  const { adapter, warnings } = await openAdapter(folder, await openPeftConfig(folder), checkpoint)
  assert.deepEqual(warnings, [])
  const engine = newEngine(checkpoint, adapter, setting, {
    ...(quantized && { quantization: 'nf4', doubleQuantization: true }),
    ...(ratio !== 1 && { trainable: groups(adapter, ratio) }),
    recompute,
  })
  await loadParameters(checkpoint, engine)
  await loadAdapter(adapter, engine)
  return { checkpoint, adapter, engine }
}

function newEngine(
  { spec }: Checkpoint,
  adapter: Adapter,
  setting: Setting,
  changes: Partial<EngineOptions> = {},
): NativeEngine {
  return new (addon().Engine)({
    ...setting,
    threads: 2,
    spec,
    training: true,
    optimizer: 'adamw',
    adapters: engineAdapters(adapter),
    recompute: false,
    maxTokens: 128,
    maxSupervised: 128,
    maxSequences: 8,
    cacheTokens: 0,
    ...changes,
  })
}

function groups({ modules }: Adapter, learningRateScale: number): ParameterGroup[] {
  return [
    { names: modules.map(({ native }) => `${native}.lora_a`) },
    { names: modules.map(({ native }) => `${native}.lora_b`), learningRateScale },
  ]
}

async function train({ engine }: Loaded): Promise<number[]> {
  const losses = []
  for (const [index, batch] of batches.entries()) {
    const sum = batch.weights.reduce((total, weight) => total + weight, 0)
    losses.push((await engine.accumulate(batch, sum, true)).loss / sum)
    await engine.optimizerStep({
      learningRate,
      beta1: 0.9,
      beta2: 0.999,
      epsilon: 1e-8,
      weightDecay,
      maxGradNorm: Number.POSITIVE_INFINITY,
      step: index + 1,
    })
  }
  return losses
}

describe('parity of adapters with PEFT', () => {
  for (const [name, options] of Object.entries(cases)) {
    const folder = goldenPath(`lora/${name}`)
    for (const setting of exactSettings) {
      it(`${name} on ${setting.backend} in ${setting.compute}`, async () => {
        const golden = readTensors(join(folder, 'golden.safetensors')).tensors
        const loaded = await load(folder, setting, options)
        const { engine, adapter, checkpoint } = loaded
        try {
          const base = await readBase(engine)
          const logits = await engine.logits(batches[0]!)
          const first = golden.get('logits')!
          assert.ok(relativeError(logits.subarray(0, first.length), first) < 1e-5, 'logits before the first step')

          const losses = await train(loaded)
          const wanted = golden.get('loss')!
          assert.equal(wanted.length, steps)
          for (const [step, loss] of losses.entries()) {
            const error = Math.abs(loss / wanted[step]! - 1)
            assert.ok(error < 1e-5, `loss of step ${step + 1}: ${loss} instead of ${wanted[step]}, off by ${error}`)
          }
          // What was learned, not what was there: the difference of 20 steps.
          const values = await readParameters(engine)
          for (const { name: native, tensor } of adapterTensors(adapter)) {
            const error = relativeError(values.get(native)!, golden.get(`last.${tensor}`)!)
            assert.ok(error < 1e-4, `${tensor} after the last step: ${error}`)
          }
          assert.deepEqual(await readBase(engine), base)
          assert.ok(checkpoint.spec.attentionBias)
        } finally {
          engine.close()
        }
      })
    }

    it(`${name}: what PEFT wrote is written back bit for bit`, async () => {
      const { engine, adapter, checkpoint } = await load(folder, { backend: 'cpu', compute: 'float32' }, options)
      const output = mkdtempSync(join(tmpdir(), 'tunesmith-adapter-'))
      try {
        const sources = adapterSources(adapter, engine)
        await saveAdapter({ folder: output, adapter, sources, model: checkpoint, tokenizerFolder: tokenizer })
        const theirs = readTensors(join(folder, 'adapter_model.safetensors')).tensors
        const ours = readTensors(join(output, 'adapter_model.safetensors')).tensors
        assert.deepEqual([...ours.keys()].sort(), [...theirs.keys()].sort())
        for (const [tensor, values] of theirs) assert.deepEqual(ours.get(tensor), values, tensor)
        const read = async (path: string) => JSON.parse(readFileSync(join(path, 'adapter_config.json'), 'utf8'))
        assert.deepEqual(await read(output), await read(folder))
      } finally {
        engine.close()
        rmSync(output, { recursive: true, force: true })
      }
    })
  }

  it('are told from whole models where one is needed', async () => {
    await assert.rejects(openCheckpoint(goldenPath('lora/lora')), {
      code: 'ERR_MODEL_NOT_FOUND',
      message: /is an adapter, and a whole model is needed here\. Merge it/,
    })
  })

  it('recomputation changes no loss', async () => {
    const results = []
    for (const recompute of [false, true]) {
      const loaded = await load(goldenPath('lora/dora'), { backend: 'cpu', compute: 'float32' }, { recompute })
      results.push(await train(loaded))
      loaded.engine.close()
    }
    assert.deepEqual(results[1], results[0])
  })
})

async function readBase(engine: NativeEngine): Promise<[string, Float64Array][]> {
  return [...(await readParameters(engine))].filter(([name]) => !name.includes('.lora_'))
}

describe('parity of PiSSA with PEFT', () => {
  for (const setting of exactSettings) {
    it(`on ${setting.backend} in ${setting.compute}`, async () => {
      const { tensors: golden } = readTensors(goldenPath('lora/pissa/golden.safetensors'))
      const checkpoint = await openCheckpoint(goldenPath('lora/base'))
      const settings = {
        ...{ rank: 4, alpha: 6, dropout: 0, targets: 'all-linear', rankPattern: {}, alphaPattern: {} },
        ...{ rslora: true, dora: false },
      }
      const base = { name: checkpoint.folder, revision: undefined }
      const adapter = { settings, modules: adaptedModules(settings, modelModules(checkpoint)), base, stored: undefined }
      const engine = newEngine(checkpoint, adapter, setting)
      const output = mkdtempSync(join(tmpdir(), 'tunesmith-adapter-'))
      try {
        await loadParameters(checkpoint, engine)
        const run = {
          adapter,
          init: 'pissa',
          beginning: new Map<string, Uint8Array>(),
          groups: undefined,
          count: 0,
        } as const
        await startAdapter(run, engine, 1, undefined)
        const logits = await engine.logits(batches[0]!)
        const first = golden.get('logits')!
        assert.ok(relativeError(logits.subarray(0, first.length), first) < 1e-5, 'the model computes what it did')
        const losses = await train({ checkpoint, adapter, engine })
        for (const [step, loss] of losses.entries()) {
          const error = Math.abs(loss / golden.get('loss')![step]! - 1)
          assert.ok(error < 1e-5, `loss of step ${step + 1}: ${error}`)
        }
        // What is saved is an adapter of twice the rank to the weights as they were.
        const exported = exportedAdapter(run, engine)
        await saveAdapter({ folder: output, ...exported, model: checkpoint, tokenizerFolder: tokenizer })
        const saved = await openAdapter(output, await openPeftConfig(output), checkpoint)
        const { tensors } = readTensors(join(output, 'adapter_model.safetensors'))
        for (const { name, rank, inputs, outputs, scale } of saved.adapter.modules) {
          assert.equal(rank, 8)
          const a = tensors.get(`base_model.model.${name}.lora_A.weight`)!
          const b = tensors.get(`base_model.model.${name}.lora_B.weight`)!
          const delta = new Float64Array(outputs * inputs)
          for (let n = 0; n < outputs; n++)
            for (let k = 0; k < inputs; k++)
              for (let r = 0; r < rank; r++) delta[n * inputs + k]! += scale * b[n * rank + r]! * a[r * inputs + k]!
          const error = relativeError(delta, golden.get(`delta.${name}`)!)
          assert.ok(error < 1e-3, `${name}: ${error}`)
        }
      } finally {
        engine.close()
        rmSync(output, { recursive: true, force: true })
      }
    })
  }
})
