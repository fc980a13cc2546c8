/** A stand-in for the native engine: parameters in memory as float64, converted to and from each storage type. */
import assert from 'node:assert/strict'
import type { NativeEngine, ParameterInfo, StorageType } from '../../lib/native/addon.ts'

type Parameter = { name: string; shape: number[] }

export class MemoryEngine implements Pick<NativeEngine, 'parameters' | 'write' | 'read' | 'commit'> {
  readonly values = new Map<string, Float64Array>()
  committed = false
  private readonly list: readonly Parameter[]

  constructor(list: readonly Parameter[]) {
    this.list = list
    for (const { name, shape } of list)
      this.values.set(name, new Float64Array(shape.reduce((a, b) => a * b, 1)).fill(Number.NaN))
  }

  parameters(): ParameterInfo[] {
    return this.list.map(({ name, shape }) => ({ name, shape, decays: shape.length > 1, trained: true }))
  }

  async write(name: string, offset: number, type: StorageType, bytes: Uint8Array): Promise<void> {
    // Settles later, as the engine's thread does: a chunk that is reused too early would show.
    await new Promise((done) => setImmediate(done))
    this.committed = false
    const target = this.values.get(name)
    assert.ok(target, name)
    const decoded = decode(type, bytes)
    assert.ok(offset + decoded.length <= target.length, `${name} overrun`)
    target.set(decoded, offset)
  }

  async read(name: string, offset: number, count: number, type: StorageType): Promise<Uint8Array> {
    const source = this.values.get(name)
    assert.ok(source && offset + count <= source.length, name)
    return encode(type, source.subarray(offset, offset + count))
  }

  async commit(): Promise<void> {
    this.committed = true
  }
}

export function decode(type: StorageType, bytes: Uint8Array): Float64Array {
  const { buffer } = new Uint8Array(bytes)
  if (type === 'float64') return new Float64Array(buffer)
  if (type === 'float32') return Float64Array.from(new Float32Array(buffer))
  if (type === 'bfloat16') return Float64Array.from(new Uint16Array(buffer), (bits) => floatOf(bits * 65536))
  return Float64Array.from(new Uint16Array(buffer), halfToNumber)
}

export function encode(type: StorageType, values: Float64Array): Uint8Array {
  if (type === 'float64') return new Uint8Array(values.slice().buffer)
  if (type === 'float32') return new Uint8Array(Float32Array.from(values).buffer)
  return new Uint8Array(Uint16Array.from(values, type === 'bfloat16' ? numberToBfloat : numberToHalf).buffer)
}

function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >> 10) & 31
  const fraction = bits & 1023
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1 + fraction / 1024) * 2 ** (exponent - 15)
}

/** Nearest, ties to even, by comparing neighbours: slow and plain. */
function numberToHalf(value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0
  const size = Math.abs(value)
  if (Number.isNaN(value)) return 0x7e00
  if (size >= 65520) return sign | 0x7c00
  const step = 2 ** (Math.max(Math.floor(Math.log2(size || 2 ** -24)), -14) - 10)
  const rounded = roundEven(size / step) * step
  if (rounded < 2 ** -14) return sign | (rounded / 2 ** -24)
  const exponent = Math.floor(Math.log2(rounded))
  return sign | ((exponent + 15) << 10) | ((rounded / 2 ** exponent - 1) * 1024)
}

function roundEven(value: number): number {
  const floor = Math.floor(value)
  const rest = value - floor
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor
}

function numberToBfloat(value: number): number {
  const bits = new Uint32Array(Float32Array.of(value).buffer)[0]!
  if (Number.isNaN(value)) return 0x7fc0
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) / 65536) & 0xffff
}

function floatOf(bits: number): number {
  return new Float32Array(Uint32Array.of(bits).buffer)[0]!
}
