/** Small random models and micro-batches for tests of the native engine. */
import assert from 'node:assert/strict'
import type {
  BackendName,
  ComputeType,
  DecoderSpec,
  EngineOptions,
  MicroBatch,
  NativeEngine,
  RopeTable,
} from '../../lib/native/addon.ts'
import { addon } from '../../lib/native/load.ts'

/** A small Llama with the changes given; what depends on a changed size follows it. */
export function smallSpec(changes: Partial<DecoderSpec> = {}): DecoderSpec {
  const headDim = changes.headDim ?? 8
  const rotaryDim = changes.rotaryDim ?? headDim
  const layers = changes.layers ?? 3
  return {
    vocabSize: 61,
    hiddenSize: 24,
    layers,
    heads: 4,
    kvHeads: 2,
    headDim,
    intermediateSize: 40,
    maxPositions: 64,
    norm: 'rms',
    normEpsilon: 1e-5,
    normUnitOffset: false,
    normBias: false,
    blockNorms: 'pre',
    parallelResidual: false,
    qkNorm: 'none',
    attentionBias: false,
    attentionOutputBias: false,
    attentionScale: headDim ** -0.5,
    attentionSoftcap: 0,
    layerWindows: new Int32Array(layers),
    ropes: [ropeTable(rotaryDim)],
    layerRopes: new Int32Array(layers),
    rotaryDim,
    longRopeThreshold: 0,
    mlp: 'gated',
    activation: 'silu',
    mlpBias: false,
    tiedEmbeddings: true,
    headBias: false,
    embeddingScale: 1,
    learnedPositions: 0,
    residualScale: 1,
    logitScale: 1,
    logitSoftcap: 0,
    ...changes,
  }
}

export function ropeTable(rotaryDim: number, theta = 10_000, scale = 1): RopeTable {
  const frequency = (_: unknown, i: number) => theta ** ((-2 * i) / rotaryDim)
  return { inverseFrequencies: Float64Array.from({ length: rotaryDim / 2 }, frequency), scale }
}

/** Beside those of the addon, the CUDA kernels on the CPU: a backend for tests. */
export type TestBackend = BackendName | 'cuda-host'

export function engineOptions(
  backend: TestBackend,
  compute: ComputeType,
  changes: Partial<EngineOptions> = {},
): EngineOptions {
  return {
    backend: backend as BackendName,
    compute,
    threads: 2,
    spec: smallSpec(),
    training: true,
    optimizer: 'adamw',
    recompute: false,
    maxTokens: 64,
    maxSupervised: 64,
    maxSequences: 8,
    cacheTokens: 0,
    ...changes,
  }
}

/** A random model; matrices large enough that every nonlinearity matters, norms and biases of every value. */
export async function randomEngine(options: EngineOptions): Promise<NativeEngine> {
  const engine = new (addon().Engine)(options)
  await engine.initialize(7, 0.3)
  for (const [seed, { name, shape }] of engine.parameters().entries()) {
    if (shape.length > 1) continue
    const base = name.endsWith('norm.weight') && !options.spec.normUnitOffset ? 1 : 0
    const values = Float64Array.from({ length: shape[0]! }, (_, i) => base + 0.3 * Math.sin(i * 7.3 + seed))
    await engine.write(name, 0, 'float64', new Uint8Array(values.buffer))
  }
  await engine.commit()
  return engine
}

/** Conversations of the given lengths; a third of the targets is context, the others weigh 0.5 or 1. */
export function randomBatch(lengths: readonly number[], vocabSize = 61): MicroBatch {
  const total = lengths.reduce((sum, length) => sum + length, 0)
  const ends = lengths.map((_, i) => lengths.slice(0, i + 1).reduce((sum, length) => sum + length, 0))
  const scattered = (seed: number) => (_: unknown, i: number) => ((i + 1) * 7919 * seed) % vocabSize
  return {
    tokens: Int32Array.from({ length: total }, scattered(1)),
    positions: Int32Array.from(lengths.flatMap((length) => [...Array(length).keys()])),
    cuSeqlens: Int32Array.from([0, ...ends]),
    targets: Int32Array.from({ length: total }, scattered(3)),
    weights: Float32Array.from({ length: total }, (_, i) => (ends.includes(i + 1) ? 0 : (i % 3) / 2)),
  }
}

export function weightSum(batch: MicroBatch): number {
  return batch.weights.reduce((sum, weight) => sum + weight, 0)
}

export async function gradients(engine: NativeEngine): Promise<Map<string, Float64Array>> {
  const result = new Map<string, Float64Array>()
  for (const { name, shape, trained } of engine.parameters()) {
    if (!trained) continue
    const count = shape.reduce((product, size) => product * size, 1)
    const bytes = await engine.readGradient(name, 0, count, 'float64')
    result.set(name, new Float64Array(bytes.buffer, bytes.byteOffset, count))
  }
  return result
}

/** ‖a − b‖ / ‖b‖ */
export function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let difference = 0
  let norm = 0
  for (let i = 0; i < b.length; i++) {
    difference += (a[i]! - b[i]!) ** 2
    norm += b[i]! ** 2
  }
  return norm === 0 ? Math.sqrt(difference) : Math.sqrt(difference / norm)
}

/** Loss and every gradient of a model of this shape against the reference in float64. */
export async function agreesWithReference(
  backend: TestBackend,
  compute: ComputeType,
  tolerance: number,
  changes: Partial<DecoderSpec>,
): Promise<void> {
  const spec = smallSpec(changes)
  const batch = randomBatch([12, 1, 8, 30])
  const reference = await randomEngine(engineOptions('reference', 'float64', { spec }))
  const engine = await randomEngine(engineOptions(backend, compute, { spec }))
  const expected = await reference.accumulate(batch, weightSum(batch), true)
  const sums = await engine.accumulate(batch, weightSum(batch), true)
  assert.ok(Math.abs(sums.loss - expected.loss) < tolerance * expected.loss, `${sums.loss} ${expected.loss}`)
  assert.equal(sums.supervised, expected.supervised)
  const wanted = await gradients(reference)
  const all: number[][] = [[], []]
  for (const [parameter, gradient] of await gradients(engine)) {
    const error = distance(gradient, wanted.get(parameter)!)
    // Biases of k have no gradient in exact arithmetic (softmax does not see a shift): only noise is left.
    if (parameter.endsWith('attention.k.bias')) continue
    // The rounding of bfloat16 is noise that a tensor of a few elements may get twice its share of.
    assert.ok(error < 2 * tolerance, `${parameter}: ${error}`)
    all[0]!.push(...gradient)
    all[1]!.push(...wanted.get(parameter)!)
  }
  assert.ok(distance(all[0]!, all[1]!) < tolerance, `all together: ${distance(all[0]!, all[1]!)}`)
  reference.close()
  engine.close()
}
