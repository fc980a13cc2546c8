import assert from 'node:assert/strict'
import type { DecoderSpec } from '../../lib/native/addon.ts'
import { addon } from '../../lib/native/load.ts'
import { engineOptions, ropeTable, smallSpec } from './models.ts'
import { shapes } from './shapes.ts'

const plan = (changes: Partial<DecoderSpec>) =>
  addon().plan(engineOptions('reference', 'float32', { spec: smallSpec(changes) }))

describe('decoder spec', () => {
  const refused: [changes: object, pattern: RegExp, code?: string][] = [
    [{ headDim: 7, rotaryDim: 6 }, /headDim is 7/],
    [{ kvHeads: 3 }, /heads \(4\) is not a multiple of kvHeads \(3\)/],
    [{ attentionScale: 0 }, /attentionScale is 0/],
    [{ attentionSoftcap: -1 }, /attentionSoftcap is -1/],
    [{ logitScale: Number.NaN }, /logitScale is nan/],
    [{ layerWindows: Int32Array.of(0) }, /layerWindows has 1 entries for 3 layers/],
    [{ layerWindows: Int32Array.of(0, -4, 0) }, /layerWindows has -4/],
    [{ layerRopes: Int32Array.of(0, 0, 0, 0) }, /layerRopes has 4 entries/],
    [{ layerRopes: Int32Array.of(0, 0, 1) }, /layerRopes names table 1 of 1/],
    [{ longRopeThreshold: 8 }, /names table 0 of 1, and longRopeThreshold wants another after it/],
    [{ rotaryDim: 10, ropes: [] }, /rotaryDim is 10 for headDim 8/],
    [{ rotaryDim: 0 }, /rotaryDim is 0, but there are ropes/],
    [{ ropes: [ropeTable(6)] }, /3 inverseFrequencies for rotaryDim 8/],
    [{ ropes: [{ ...ropeTable(8), scale: 0 }] }, /a rope's scale is 0/],
    [{ normBias: true }, /normBias goes with norm 'layer'/],
    [{ norm: 'layer', normUnitOffset: true }, /normUnitOffset goes with norm 'rms'/],
    [{ norm: 'layer', qkNorm: 'head' }, /qkNorm goes with norm 'rms'/],
    [{ norm: 'layer', blockNorms: 'post' }, /go with norm 'rms'/],
    [{ parallelResidual: true, blockNorms: 'pre+post' }, /parallelResidual goes with blockNorms 'pre'/],
    [{ learnedPositions: 63 }, /learnedPositions \(63\) is less than maxPositions \(64\)/],
    [{ norm: 'batch' }, /norm is 'batch'; one of 'rms', 'layer'/, 'ERR_INVALID_ARGUMENT'],
    [{ ropes: [{}] }, /inverseFrequencies is not a typed array/, 'ERR_INVALID_ARGUMENT'],
    [{ headBias: 1 }, /headBias is not a boolean/, 'ERR_INVALID_ARGUMENT'],
  ]
  for (const [changes, message, code = 'ERR_INVALID_SPEC'] of refused) {
    it(`is refused by name: ${message.source}`, () => assert.throws(() => plan(changes), { code, message }))
  }

  it('takes memory for what it names only', () => {
    const llama = plan({})
    const bytes = (name: string) => plan(shapes[name]!)
    assert.equal(bytes('Mistral: a window').total, llama.total)
    assert.equal(bytes('SmolLM 3: a layer without rotation').total, llama.total)
    assert.equal(bytes('Granite: scales everywhere').total, llama.total)
    // Rotary tables end with the longest conversation that is planned for.
    assert.equal(plan({ maxPositions: 131_072 }).total, llama.total)
    const tables = plan({ ropes: [ropeTable(8), ropeTable(8)] })
    assert.equal(tables.scratch - llama.scratch, 64 * 8 * 4)
    // Norms per head keep what is projected; what attention reads is made again in one buffer for all layers.
    const qwen = plan({ qkNorm: 'head' })
    assert.equal(qwen.activations, llama.activations)
    assert.ok(qwen.scratch > llama.scratch)
    // Without norms in front there are no statistics to keep, behind them what they normalise.
    assert.ok(plan({ blockNorms: 'post' }).activations > llama.activations)
    // The stream between the blocks is not kept where nothing reads it in backward.
    assert.ok(plan({ parallelResidual: true }).activations < llama.activations)
  })
})
