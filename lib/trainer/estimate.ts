/** How long a run will take, from a measurement of its own layers on this machine. */
import { collate } from '../batch/collate.ts'
import { elementsOf } from '../checkpoint/safetensors-header.ts'
import type { Example } from '../data/conversation.ts'
import type { DecoderSpec, EngineOptions, NativeEngine } from '../native/addon.ts'
import { addon } from '../native/load.ts'
import type { Setup } from './setup.ts'

/** Tokens of the measured micro-batch: enough for matmuls to reach their speed. */
const probeTokens = 1024
/** Layers that are measured; the rest is scaled from them. */
const probeLayers = 2
/** Rows of the head that are measured: the embedding of a large vocabulary takes long to allocate. */
const probeVocabulary = 4096

/**
 * Seconds of training without evaluation: the tokens of the run times the measured time per floating-point operation,
 * plus the measured time of an optimizer step per parameter. Machines that others share vary by a third and more.
 */
export async function estimateSeconds(setup: Setup): Promise<number> {
  const { engineOptions, train, plan } = setup
  const tokens = Math.min(probeTokens, engineOptions.maxTokens)
  const layers = Math.min(probeLayers, engineOptions.spec.layers)
  const spec: DecoderSpec = {
    ...engineOptions.spec,
    layers,
    layerWindows: engineOptions.spec.layerWindows.slice(0, layers),
    layerRopes: engineOptions.spec.layerRopes.slice(0, layers),
    vocabSize: Math.min(probeVocabulary, engineOptions.spec.vocabSize),
  }
  const share = train.supervisedTokens / train.tokens
  const length = Math.max(2, Math.min(spec.maxPositions, tokens, Math.round(train.tokens / train.examples.length)))
  const sequences = Math.max(1, Math.floor(tokens / length))
  const batch = collate(Array.from({ length: sequences }, () => probeExample(length, share, spec.vocabSize)))
  // Of the probe's few layers everything trains; what is frozen is taken off below.
  const { trainable: _, adapters, quantization, doubleQuantization = true, ...common } = engineOptions
  const probed = adapters?.modules.filter(({ parts }) => layerOf(parts[0]!, spec.layers) < layers)
  const options: EngineOptions = {
    ...common,
    spec,
    ...(adapters && probed!.length > 0 && { adapters: { ...adapters, modules: probed! } }),
    // What is quantised cannot train.
    ...(quantization && probed?.length && { quantization, doubleQuantization }),
    maxTokens: sequences * length,
    maxSupervised: sequences * length,
    maxSequences: sequences,
  }
  const engine = new (addon().Engine)(options)
  try {
    await engine.initialize(0, 0.02)
    if (options.adapters) await engine.initializeAdapters(0)
    await engine.commit()
    const weight = batch.weights.reduce((sum, value) => sum + value, 0)
    const step = { learningRate: 0, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0, maxGradNorm: 1, step: 1 }
    let forward = Number.POSITIVE_INFINITY
    let computing = Number.POSITIVE_INFINITY
    let updating = Number.POSITIVE_INFINITY
    // The first round makes primitives and touches memory; the best of the others is the machine's own speed.
    for (let round = 0; round < 3; round++) {
      const started = performance.now()
      await engine.evaluate(batch)
      const began = performance.now()
      await engine.accumulate(batch, weight, true, { seed: 0, step: 1 })
      const computed = performance.now()
      await engine.optimizerStep(step)
      if (round === 0) continue
      forward = Math.min(forward, began - started)
      computing = Math.min(computing, computed - began)
      updating = Math.min(updating, performance.now() - computed)
    }
    // With adapters, only they train in the probe too.
    const backward = options.adapters ? 1 : backwardShare(setup)
    const needed = forward + Math.max(0, computing - forward) * backward
    const perOperation = needed / operations(spec, sequences * length, share, length)
    const perParameter = updating / trainedCount(engine)
    const perEpoch = perOperation * operations(engineOptions.spec, train.tokens, share, length)
    return (perEpoch * plan.epochs + perParameter * plan.trainable * plan.steps) / 1000
  } finally {
    engine.close()
  }
}

function probeExample(length: number, share: number, vocabulary: number): Example {
  const ids = Int32Array.from({ length }, (_, i) => (i * 7919) % vocabulary)
  // The last tokens of a conversation are the ones that carry loss, and at least one does.
  const first = Math.min(length - 1, Math.round(length * (1 - share)))
  const weights = Float32Array.from({ length }, (_, i) => (i >= first ? 1 : 0))
  return { ids, weights, source: { file: 'probe', line: 1 } }
}

/** Half of backward is gradients of weights, those that train; half is gradients of inputs, down to the lowest of them. */
function backwardShare({ engineOptions: { trainable, spec }, plan }: Setup): number {
  if (!trainable) return 1
  const layers = trainable.flatMap(({ names }) => names).map((name) => layerOf(name, spec.layers))
  const reached = (spec.layers - Math.min(...layers)) / spec.layers
  return (plan.trainable / plan.parameters + reached) / 2
}

function layerOf(name: string, layers: number): number {
  const layer = /^layers\.(\d+)\./.exec(name)?.[1]
  if (layer !== undefined) return Number(layer)
  return /^(final_norm|head)\./.test(name) ? layers : 0
}

/** Multiply-adds of forward and backward, up to a common factor. */
function operations(spec: DecoderSpec, tokens: number, share: number, length: number): number {
  // Twice the keys that a token sees on average.
  const seen = spec.layerWindows.reduce((sum, window) => sum + (window > 0 ? Math.min(length, 2 * window) : length), 0)
  const layers = spec.layers * layerParameters(spec) + spec.heads * spec.headDim * seen
  return tokens * (layers + share * spec.vocabSize * spec.hiddenSize)
}

function layerParameters({ hiddenSize, heads, kvHeads, headDim, intermediateSize, mlp }: DecoderSpec): number {
  return hiddenSize * (2 * (heads + kvHeads) * headDim + (mlp === 'gated' ? 3 : 2) * intermediateSize)
}

function trainedCount(engine: NativeEngine): number {
  return engine.parameters().reduce((sum, { shape, trained }) => sum + (trained ? elementsOf(shape) : 0), 0)
}
