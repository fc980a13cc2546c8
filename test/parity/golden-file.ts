// The golden files of scripts/python/make_golden.py and make_family_golden.py: read here by twenty lines of their own, so that a fault of the
// package's safetensors reader cannot hide behind itself.
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { MicroBatch } from '../../lib/native/addon.ts'
import { shared } from '../shared.ts'

export type Values = Float32Array | Float64Array | Int32Array
type Entry = { dtype: keyof typeof arrays; shape: number[]; data_offsets: [number, number] }
const arrays = { F32: Float32Array, F64: Float64Array, I32: Int32Array }

export interface Golden {
  batch: MicroBatch
  weightSum: number
  /** Σ weight · nll / Σ weight. */
  loss: number
  /** [S] rows of the micro-batch, and [S, V] their logits. */
  logitRows: Int32Array
  logits: Float32Array
  /** By the names of Transformers. */
  gradients: Map<string, Float32Array>
}

/** Absolute path of a file under test/golden. */
export function goldenPath(path: string): string {
  return fileURLToPath(new URL(`../golden/${path}`, import.meta.url))
}

/** The checkpoint folder of a case: the random models lie beside their golden file, the trained one in ../shared. */
export function checkpointOf(name: string): string {
  return name === 'stories260K' ? shared('models/stories260K') : goldenPath(name)
}

export function readGolden(name: string): Golden {
  return goldenOf(readTensors(goldenPath(`${name}/golden.safetensors`)).tensors)
}

/** The arrays of a golden file as a micro-batch and what is expected of it; every logit row where it names none. */
export function goldenOf(tensors: ReadonlyMap<string, Values>): Golden {
  const int = (tensor: string) => tensors.get(tensor) as Int32Array
  const weights = tensors.get('weights') as Float32Array
  const gradients = [...tensors].filter(([tensor]) => tensor.startsWith('grad.'))
  return {
    batch: {
      tokens: int('tokens'),
      positions: int('positions'),
      cuSeqlens: int('cu_seqlens'),
      targets: int('targets'),
      weights,
    },
    weightSum: weights.reduce((sum, weight) => sum + weight, 0),
    loss: tensors.get('loss')![0]!,
    logitRows: int('logit_rows') ?? Int32Array.from(weights.keys()),
    logits: tensors.get('logits') as Float32Array,
    gradients: new Map(gradients.map(([tensor, values]) => [tensor.slice(5), values as Float32Array])),
  }
}

export interface TensorFile {
  tensors: Map<string, Values>
  shapes: Map<string, number[]>
  metadata: Record<string, string>
}

export function readTensors(path: string): TensorFile {
  const file = readFileSync(path)
  const begin = 8 + Number(file.readBigUInt64LE(0))
  const { __metadata__: metadata = {}, ...header } = JSON.parse(file.toString('utf8', 8, begin))
  const tensors = new Map<string, Values>()
  const shapes = new Map<string, number[]>()
  for (const [tensor, { dtype, shape, data_offsets: offsets }] of Object.entries<Entry>(header)) {
    const bytes = new Uint8Array(file.subarray(begin + offsets[0], begin + offsets[1]))
    tensors.set(tensor, new arrays[dtype](bytes.buffer))
    shapes.set(tensor, shape)
  }
  return { tensors, shapes, metadata }
}
