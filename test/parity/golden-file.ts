// The golden files of scripts/python/make_golden.py: read here by twenty lines of their own, so that a fault of the
// package's safetensors reader cannot hide behind itself.
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { MicroBatch } from '../../lib/native/addon.ts'
import { shared } from '../shared.ts'

type Values = Float32Array | Float64Array | Int32Array
type Entry = { dtype: keyof typeof arrays; data_offsets: [number, number] }
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
  const file = readFileSync(goldenPath(`${name}/golden.safetensors`))
  const begin = 8 + Number(file.readBigUInt64LE(0))
  const header = JSON.parse(file.toString('utf8', 8, begin))
  delete header.__metadata__
  const tensors = new Map<string, Values>()
  for (const [tensor, { dtype, data_offsets: offsets }] of Object.entries<Entry>(header)) {
    const bytes = new Uint8Array(file.subarray(begin + offsets[0], begin + offsets[1]))
    tensors.set(tensor, new arrays[dtype](bytes.buffer))
  }
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
    logitRows: int('logit_rows'),
    logits: tensors.get('logits') as Float32Array,
    gradients: new Map(gradients.map(([tensor, values]) => [tensor.slice(5), values as Float32Array])),
  }
}
