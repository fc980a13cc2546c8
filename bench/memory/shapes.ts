/** The models and ways of tuning that bench/memory measures, as engine options. */
import { llamaSpec } from '../../lib/checkpoint/families/spec.ts'
import { ropeTables } from '../../lib/checkpoint/rope.ts'
import type { AdapterModule, DecoderSpec, EngineOptions } from '../../lib/native/addon.ts'

export const shapes = ['135M', '360M', '1.7B'] as const
export type Shape = (typeof shapes)[number]
export const methods = ['full', 'lora', 'qlora'] as const
export type Method = (typeof methods)[number]
export type Precision = 'float32' | 'bfloat16'

export interface Run {
  shape: Shape
  method: Method
  precision: Precision
  /** Conversations of one micro-batch and their tokens; all of them carry loss. */
  sequences: number
  length: number
  threads: number
}

/** SmolLM2's config.json files. */
const sizes = {
  '135M': { hiddenSize: 576, layers: 30, heads: 9, kvHeads: 3, intermediateSize: 1536 },
  '360M': { hiddenSize: 960, layers: 32, heads: 15, kvHeads: 5, intermediateSize: 2560 },
  '1.7B': { hiddenSize: 2048, layers: 24, heads: 32, kvHeads: 32, intermediateSize: 8192 },
}

const projections = ['attention.q', 'attention.k', 'attention.v', 'attention.o', 'mlp.gate', 'mlp.up', 'mlp.down']
const rank = 16

function decoderSpec(shape: Shape, maxPositions: number): DecoderSpec {
  const headDim = 64
  const tables = ropeTables(headDim, 100_000, { type: 'default' })
  const rope = { tables, rotaryDim: headDim, longRopeThreshold: 0, unused: [] }
  const differences = { normEpsilon: 1e-5, tiedEmbeddings: true }
  return llamaSpec({ ...sizes[shape], vocabSize: 49_152, headDim, maxPositions }, rope, differences)
}

/** Every linear layer of every block. */
function everywhere(layers: number): AdapterModule[] {
  return Array.from({ length: layers }, (_, layer) =>
    projections.map((projection) => {
      const name = `layers.${layer}.${projection}`
      return { name, parts: [name], rank, scale: 2 }
    }),
  ).flat()
}

export function engineOptions({ shape, method, precision, sequences, length, threads }: Run): EngineOptions {
  const { layers } = sizes[shape]
  return {
    backend: 'cpu',
    compute: precision,
    threads,
    spec: decoderSpec(shape, length),
    training: true,
    optimizer: 'adamw',
    recompute: false,
    maxTokens: sequences * length,
    maxSupervised: sequences * length,
    maxSequences: sequences,
    cacheTokens: 0,
    ...(method !== 'full' && { adapters: { modules: everywhere(layers), dora: false, dropout: 0 } }),
    ...(method === 'qlora' && { quantization: 'nf4', doubleQuantization: true }),
  }
}
