/**
 * An adapter that was started from the weights themselves (PiSSA) belongs to what that has left of them. Saved is what
 * training has added to the weights as they were, s · (B A - B₀ A₀) = s · [B, -B₀] [A; A₀]: an adapter of twice the rank, as
 * PEFT converts it too.
 */
import type { NativeEngine } from '../../native/addon.ts'
import { elementsOf } from '../safetensors-header.ts'
import { type Adapter, adapterTensors } from './adapter.ts'
import { type AdapterSource, putRows } from './weights.ts'

export function differenceAdapter(
  adapter: Adapter,
  beginning: ReadonlyMap<string, Uint8Array>,
  engine: Pick<NativeEngine, 'read'>,
): { adapter: Adapter; sources: AdapterSource[] } {
  const { settings } = adapter
  // Twice the rank under the same factor.
  const growth = settings.rslora ? Math.SQRT2 : 2
  const times = (values: Record<string, number>, factor: number) =>
    Object.fromEntries(Object.entries(values).map(([pattern, value]) => [pattern, factor * value]))
  const doubled: Adapter = {
    ...adapter,
    settings: {
      ...settings,
      rank: 2 * settings.rank,
      alpha: growth * settings.alpha,
      rankPattern: times(settings.rankPattern, 2),
      alphaPattern: times(settings.alphaPattern, growth),
    },
    modules: adapter.modules.map((module) => ({ ...module, rank: 2 * module.rank, alpha: growth * module.alpha })),
  }
  const before = adapterTensors(adapter)
  const sources = adapterTensors(doubled).map(({ name, tensor, shape, rows }, index) => ({
    name: tensor,
    shape,
    read: async () => {
      const old = before[index]!
      const now = floats(await engine.read(name, 0, elementsOf(old.shape), 'float32'))
      const first = floats(beginning.get(name)!)
      const values = name.endsWith('.lora_a') ? below(now, first) : beside(now, first, old.shape[1]!)
      const bytes = new Uint8Array(values.buffer)
      return rows ? putRows(bytes, rows) : bytes
    },
  }))
  return { adapter: doubled, sources }
}

/** [A; A₀] */
function below(now: Float32Array, first: Float32Array): Float32Array {
  const values = new Float32Array(2 * now.length)
  values.set(now)
  values.set(first, now.length)
  return values
}

/** [B, -B₀] of rows of `rank`. */
function beside(now: Float32Array, first: Float32Array, rank: number): Float32Array {
  const values = new Float32Array(2 * now.length)
  for (const [index, value] of now.entries()) {
    const at = Math.floor(index / rank) * 2 * rank + (index % rank)
    values[at] = value
    values[at + rank] = -first[index]!
  }
  return values
}

function floats(bytes: Uint8Array): Float32Array {
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4)
}
