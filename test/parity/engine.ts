// Engines for the parity tests, and what they compare with.

import { loadParameters } from '../../lib/checkpoint/load.ts'
import { type Checkpoint, openCheckpoint } from '../../lib/checkpoint/open.ts'
import type { EngineOptions, MicroBatch, NativeEngine } from '../../lib/native/addon.ts'
import { addon } from '../../lib/native/load.ts'

export type Setting = Pick<EngineOptions, 'backend' | 'compute'>

/** Every way of computing in (at least) float32 that runs without a GPU. */
export const exactSettings: readonly Setting[] = [
  { backend: 'reference', compute: 'float64' },
  { backend: 'reference', compute: 'float32' },
  { backend: 'cpu', compute: 'float32' },
]

export interface Loaded {
  engine: NativeEngine
  checkpoint: Checkpoint
}

/** An engine for training with the checkpoint's parameters in it, large enough for `batch`. */
export async function load(folder: string, batch: MicroBatch, options: Partial<EngineOptions>): Promise<Loaded> {
  const checkpoint = await openCheckpoint(folder)
  const engine = new (addon().Engine)({
    backend: 'cpu',
    compute: 'float32',
    threads: 2,
    spec: checkpoint.spec,
    training: true,
    optimizer: 'adamw',
    recompute: false,
    maxTokens: batch.tokens.length,
    maxSupervised: batch.tokens.length,
    maxSequences: batch.cuSeqlens.length - 1,
    cacheTokens: 0,
    ...options,
  })
  await loadParameters(checkpoint, engine)
  return { engine, checkpoint }
}

/** Every accumulated gradient, by native name. */
export async function readGradients(engine: NativeEngine): Promise<Map<string, Float64Array>> {
  return readAll(engine, (name, count) => engine.readGradient(name, 0, count, 'float64'))
}

/** Every parameter, by native name. */
export async function readParameters(engine: NativeEngine): Promise<Map<string, Float64Array>> {
  return readAll(engine, (name, count) => engine.read(name, 0, count, 'float64'))
}

async function readAll(engine: NativeEngine, read: (name: string, count: number) => Promise<Uint8Array>) {
  const tensors = new Map<string, Float64Array>()
  for (const { name, shape } of engine.parameters()) {
    const count = shape.reduce((product, size) => product * size, 1)
    const bytes = await read(name, count)
    tensors.set(name, new Float64Array(bytes.buffer, bytes.byteOffset, count))
  }
  return tensors
}

/** ‖a − b‖ / ‖b‖ over all elements, in float64. */
export function relativeError(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) throw new Error(`${a.length} elements against ${b.length}`)
  let difference = 0
  let norm = 0
  for (let i = 0; i < a.length; i++) {
    difference += (a[i]! - b[i]!) ** 2
    norm += b[i]! ** 2
  }
  return Math.sqrt(difference / norm)
}

/** Relative error per tensor, largest first; both sides must have the same tensors. */
export function compareTensors(
  ours: ReadonlyMap<string, ArrayLike<number>>,
  theirs: ReadonlyMap<string, ArrayLike<number>>,
): { name: string; error: number }[] {
  if (ours.size !== theirs.size) throw new Error(`${ours.size} tensors against ${theirs.size}`)
  const rows = [...theirs].map(([name, values]) => {
    const own = ours.get(name)
    if (!own) throw new Error(`no tensor ${name}`)
    return { name, error: relativeError(own, values) }
  })
  return rows.sort((a, b) => b.error - a.error)
}
