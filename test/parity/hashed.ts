// Weights that need no file: a hash of their index, the same in scripts/python/bf16_distance.py and make_family_golden.py.

import type { JsonObject } from '../../lib/checkpoint/json.ts'
import { describeModel } from '../../lib/checkpoint/open.ts'
import type { EngineOptions, NativeEngine } from '../../lib/native/addon.ts'
import { addon } from '../../lib/native/load.ts'

/** The finaliser of MurmurHash3 over index and stream, as a number in [-1, 1). */
export function uniform(stream: number, index: number): number {
  let x = (Math.imul(index, 0x9e3779b1) + Math.imul(stream, 0x85ebca77)) | 0
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b)
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35)
  return ((x ^ (x >>> 16)) >>> 8) * 2 ** -23 - 1
}

/** Stream 1 + i for the i-th tensor in the order of its Transformers names; deviation 1/√columns, norms around 1. */
export async function hashedEngine(config: JsonObject, options: Omit<EngineOptions, 'spec'>): Promise<NativeEngine> {
  const { spec, family } = await describeModel(config)
  const engine = new (addon().Engine)({ ...options, spec })
  const sources = family.parameters(spec).sort((a, b) => (a.tensor < b.tensor ? -1 : 1))
  for (const [index, { name, shape }] of sources.entries()) {
    const scale = shape.length === 1 ? 0.2 : Math.sqrt(3 / shape.at(-1)!)
    const offset = shape.length === 1 ? 1 : 0
    const count = shape.reduce((product, size) => product * size, 1)
    const values = Float32Array.from({ length: count }, (_, i) => offset + scale * uniform(1 + index, i))
    await engine.write(name, 0, 'float32', new Uint8Array(values.buffer))
  }
  await engine.commit()
  return engine
}
