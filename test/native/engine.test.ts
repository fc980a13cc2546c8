import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import type { DecoderSpec, MicroBatch } from '../../lib/native/addon.ts'
import { addon } from '../../lib/native/load.ts'
import { engineOptions, randomBatch, randomEngine, smallSpec, weightSum } from './models.ts'

/** Steps that take seconds on any machine, for ending them in the middle. */
const longRun = `
  import { engineOptions, randomBatch, randomEngine, smallSpec } from ${JSON.stringify(new URL('models.ts', import.meta.url).href)}
  const spec = smallSpec({ hiddenSize: 256, layers: 24, intermediateSize: 1024 })
  const engine = await randomEngine(engineOptions('reference', 'float32', { spec, maxTokens: 64 }))
  const batch = randomBatch([64])
  const running = engine.accumulate(batch, 10, true)
`

function runScript(body: string) {
  return spawnSync(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', longRun + body], {
    encoding: 'utf8',
    timeout: 30_000,
  })
}

describe('engine', () => {
  it('plans the memory it takes', async () => {
    const options = engineOptions('cpu', 'float32')
    const plan = addon().plan(options)
    const engine = await randomEngine(options)
    assert.deepEqual(engine.plan, plan)
    const { total, ...kinds } = plan
    assert.equal(
      Object.values(kinds).reduce((sum, bytes) => sum + bytes, 0),
      total,
    )
    assert.ok(plan.gradients >= plan.parameters && plan.optimizer >= 2 * plan.parameters)
    engine.close()
  })

  it('tells the loss of every row that carries it, where it evaluates', async () => {
    for (const backend of ['reference', 'cpu'] as const) {
      const engine = await randomEngine(engineOptions(backend, 'float32'))
      const batch = randomBatch([12, 1, 8])
      const { nll, loss, supervised, perSequence } = await engine.evaluate(batch)
      const weights = [...batch.weights].filter((weight) => weight > 0)
      assert.equal(nll!.length, supervised)
      assert.equal(weights.length, supervised)
      const weighted = weights.map((weight, row) => weight * nll![row]!)
      const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0)
      assert.ok(Math.abs(sum(weighted) - loss) < 1e-9 * loss)
      const first = [...batch.weights.subarray(0, 12)].filter((weight) => weight > 0).length
      assert.ok(Math.abs(sum(weighted.slice(0, first)) - perSequence[0]!) < 1e-9 * loss)
      assert.equal((await engine.accumulate(batch, weightSum(batch), true)).nll, undefined)
      engine.close()
    }
  })

  it('plans the working memory of every op, whatever the conversations', async () => {
    for (const compute of ['float32', 'bfloat16'] as const) {
      // Few key heads: attention's backward cuts them into parts with sums of their own.
      const spec = smallSpec({ kvHeads: 1, maxPositions: 400 })
      const limits = { spec, maxTokens: 400, maxSupervised: 400, maxSequences: 40, cacheTokens: 300 }
      const engine = await randomEngine(engineOptions('cpu', compute, limits))
      const mixes = [[400], [200, 200], [390, 5, 5], [100, 90, 80, 70, 60], Array(40).fill(10), [1]]
      for (const lengths of mixes) {
        const batch = randomBatch(lengths)
        if (lengths.length > 1) await engine.evaluate(batch)
        if (lengths[0]! > 1) await engine.accumulate(batch, weightSum(batch), true)
        assert.equal(engine.unplanned, 0, `${compute}, ${lengths}`)
      }
      await engine.extend(
        Int32Array.from({ length: 290 }, (_, i) => i % 61),
        0,
      )
      await engine.extend(Int32Array.of(3), 290)
      assert.equal(engine.unplanned, 0)
      engine.close()
    }
  })

  it('plans it for every shape of decoder', async () => {
    const none = Int32Array.of(-1, -1, -1)
    const variants: Record<string, Partial<DecoderSpec>> = {
      gemma: { normUnitOffset: true, blockNorms: 'pre+post', qkNorm: 'head', attentionSoftcap: 20, logitSoftcap: 30 },
      olmo2: { blockNorms: 'post', qkNorm: 'full' },
      neox: { norm: 'layer', normBias: true, parallelResidual: true, mlp: 'plain', activation: 'gelu', mlpBias: true },
      gpt2: {
        norm: 'layer',
        normBias: true,
        mlp: 'plain',
        learnedPositions: 64,
        layerRopes: none,
        attentionBias: true,
      },
    }
    for (const [name, changes] of Object.entries(variants))
      for (const compute of ['float32', 'bfloat16'] as const)
        for (const recompute of [false, true]) {
          const engine = await randomEngine(engineOptions('cpu', compute, { spec: smallSpec(changes), recompute }))
          for (const lengths of [[64], [30, 20, 4]]) {
            const batch = randomBatch(lengths)
            await engine.accumulate(batch, weightSum(batch), true)
          }
          assert.equal(engine.unplanned, 0, `${name}, ${compute}`)
          engine.close()
        }
  })

  it('stores and returns parameters in every storage type', async () => {
    const engine = await randomEngine(engineOptions('cpu', 'float32'))
    const values = [1, -2.5, 0.15625, 1e-3]
    await engine.write('final_norm.weight', 2, 'float32', new Uint8Array(Float32Array.from(values).buffer))
    const read = async (type: 'float64' | 'float32' | 'bfloat16' | 'float16') =>
      (await engine.read('final_norm.weight', 2, 4, type)).buffer
    assert.deepEqual([...new Float64Array(await read('float64'))], values.map(Math.fround))
    assert.deepEqual([...new Uint16Array(await read('bfloat16'))], [0x3f80, 0xc020, 0x3e20, 0x3a83])
    assert.deepEqual([...new Uint16Array(await read('float16'))], [0x3c00, 0xc100, 0x3100, 0x1419])
    await assert.rejects(engine.read('final_norm.weight', 20, 5, 'float32'), { code: 'ERR_INVALID_ARGUMENT' })
    await assert.rejects(engine.read('nothing', 0, 1, 'float32'), { code: 'ERR_UNKNOWN_PARAMETER' })
    engine.close()
  })

  it('refuses batches that would read or write outside its memory', async () => {
    const engine = await randomEngine(engineOptions('cpu', 'float32'))
    const good = randomBatch([12, 8])
    const bad: [string, Partial<MicroBatch>][] = [
      ['tokens', { tokens: good.tokens.map(() => 61) }],
      ['tokens', { tokens: good.tokens.map(() => -1) }],
      ['positions', { positions: good.positions.map(() => 64) }],
      ['targets', { targets: good.targets.map(() => 1 << 30) }],
      ['weights', { weights: good.weights.map(() => Number.NaN) }],
      ['weights', { weights: good.weights.map(() => -1) }],
      ['cuSeqlens', { cuSeqlens: Int32Array.from([0, 12, 12, 20]) }],
      ['cuSeqlens', { cuSeqlens: Int32Array.from([0, 12]) }],
      ['positions', { positions: good.positions.slice(1) }],
    ]
    for (const [field, change] of bad) {
      await assert.rejects(engine.evaluate({ ...good, ...change }), { code: 'ERR_INVALID_BATCH' }, field)
    }
    await assert.rejects(engine.evaluate(randomBatch([65])), { code: 'ERR_INVALID_BATCH' })
    await assert.rejects(engine.evaluate(randomBatch(Array(9).fill(2))), { code: 'ERR_INVALID_BATCH' })
    assert.throws(() => engine.evaluate({ ...good, tokens: new Float32Array(20) } as unknown as MicroBatch), {
      code: 'ERR_INVALID_ARGUMENT',
    })
    assert.ok((await engine.evaluate(good)).loss > 0)
    engine.close()
  })

  it('does not touch the weights when the gradient is not finite', async () => {
    const engine = await randomEngine(engineOptions('cpu', 'float32'))
    const batch = randomBatch([12])
    await engine.write('final_norm.weight', 0, 'float32', new Uint8Array(Float32Array.of(Number.NaN).buffer))
    await engine.accumulate(batch, weightSum(batch), true)
    const before = await engine.read('embedding.weight', 0, 61 * 24, 'float32')
    const step = { learningRate: 1, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0, maxGradNorm: 1, step: 1 }
    const { applied, gradNorm } = await engine.optimizerStep(step)
    assert.equal(applied, false)
    assert.ok(Number.isNaN(gradNorm))
    assert.deepEqual(await engine.read('embedding.weight', 0, 61 * 24, 'float32'), before)
    engine.close()
  })

  it('ends running and queued work on cancel, and works on afterwards', async () => {
    const spec = smallSpec({ hiddenSize: 256, layers: 24, intermediateSize: 1024 })
    const engine = await randomEngine(engineOptions('reference', 'float32', { spec }))
    const batch = randomBatch([64])
    const work = [engine.accumulate(batch, 10, true), engine.accumulate(batch, 10, false)]
    const outcomes = Promise.allSettled(work)
    const start = performance.now()
    engine.cancel()
    const after = engine.evaluate(randomBatch([4]))
    for (const outcome of await outcomes) {
      assert.equal(outcome.status, 'rejected')
      assert.equal((outcome.reason as { code: string }).code, 'ERR_CANCELLED')
    }
    assert.ok(performance.now() - start < 2000)
    assert.ok((await after).loss > 0)
    engine.close()
  })

  it('refuses work after close, and closes twice', async () => {
    const engine = await randomEngine(engineOptions('cpu', 'float32'))
    const running = engine.evaluate(randomBatch([8]))
    running.catch(() => undefined)
    engine.close()
    engine.close()
    assert.throws(() => engine.evaluate(randomBatch([8])), { code: 'ERR_CLOSED' })
  })

  it('leaves the event loop free while it works', async () => {
    const spec = smallSpec({ hiddenSize: 256, layers: 8, intermediateSize: 1024 })
    const engine = await randomEngine(engineOptions('reference', 'float32', { spec }))
    let ticks = 0
    const timer = setInterval(() => ticks++, 2)
    await engine.accumulate(randomBatch([64]), 10, true)
    clearInterval(timer)
    assert.ok(ticks > 10, `${ticks} ticks`)
    engine.close()
  })

  it('process.exit in the middle of a step keeps its code', () => {
    const { status, stderr } = runScript('setTimeout(() => process.exit(7), 50); await running')
    assert.equal(status, 7, stderr)
  })

  it('an uncaught error in the middle of a step ends the process as always', () => {
    const { status, stderr } = runScript('setTimeout(() => { throw new Error("listener") }, 50); await running')
    assert.equal(status, 1)
    assert.match(stderr, /listener/)
  })

  it('an engine that nobody closed does not hold the process', () => {
    const { status, stderr } = runScript('engine.cancel(); await running.catch(() => {}); globalThis.kept = engine')
    assert.equal(status, 0, stderr)
  })

  it('survives the end of a worker in the middle of a step', async () => {
    const code = `import('tsx/esm/api').then(({ register }) => { register(); return import('data:text/javascript,' + encodeURIComponent(${JSON.stringify(
      `${longRun}; const { parentPort } = await import('node:worker_threads'); parentPort.postMessage('running'); await running`,
    )})) })`
    const worker = new Worker(code, { eval: true })
    await once(worker, 'message')
    const start = performance.now()
    await worker.terminate()
    assert.ok(performance.now() - start < 2000)
    const engine = await randomEngine(engineOptions('reference', 'float32'))
    assert.ok((await engine.evaluate(randomBatch([8]))).loss > 0)
    engine.close()
  })
})
