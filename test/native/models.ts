/** Small random models and micro-batches for tests of the native engine. */
import type {
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

export function engineOptions(
  backend: 'reference' | 'cpu',
  compute: ComputeType,
  changes: Partial<EngineOptions> = {},
): EngineOptions {
  return {
    backend,
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
