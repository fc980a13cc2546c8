/**
 * From float32 to the types of GGUF tensors: f32, f16, bf16, and q8_0, llama.cpp's blocks of 32 weights: a half-precision
 * scale d = max|x| / 127 and 32 signed bytes round(x / d).
 */
import { TunesmithError } from '../../errors.ts'

export type GgufType = 'f32' | 'f16' | 'bf16' | 'q8_0'

export const ggufTypes: readonly GgufType[] = ['f32', 'f16', 'bf16', 'q8_0']

/** ggml's number of a type, elements of a block and bytes of one. */
export const typeInfo: Record<GgufType, { id: number; block: number; bytes: number }> = {
  f32: { id: 0, block: 1, bytes: 4 },
  f16: { id: 1, block: 1, bytes: 2 },
  q8_0: { id: 8, block: 32, bytes: 34 },
  bf16: { id: 30, block: 1, bytes: 2 },
}

/** Bytes of a tensor; its rows must be whole blocks. */
export function encodedBytes(type: GgufType, elements: number): number {
  const { block, bytes } = typeInfo[type]
  return (elements / block) * bytes
}

/**
 * @param values whole blocks of the type
 * @param name of the tensor, for the error
 * @throws ERR_GGUF_RANGE where a value does not fit half precision
 */
export function encode(type: GgufType, values: Float32Array, name: string): Uint8Array {
  if (type === 'f32') return new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
  if (type === 'bf16') return bytesOf(toBfloat16(values))
  if (type === 'f16') return bytesOf(halves(values, name))
  return toBlocks(values, name)
}

function bytesOf(values: Uint16Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
}

/** To nearest, ties to even; a NaN stays one. */
function toBfloat16(values: Float32Array): Uint16Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length)
  const result = new Uint16Array(values.length)
  for (let i = 0; i < bits.length; i++) {
    const bit = bits[i]!
    result[i] = (bit & 0x7fffffff) > 0x7f800000 ? (bit >>> 16) | 0x40 : (bit + 0x7fff + ((bit >>> 16) & 1)) >>> 16
  }
  return result
}

const scratch = new Float32Array(1)
const scratchBits = new Uint32Array(scratch.buffer)

/** The bits of a number in half precision, to nearest, ties to even. */
export function toHalf(value: number): number {
  scratch[0] = value
  const bits = scratchBits[0]!
  const sign = (bits >>> 16) & 0x8000
  const magnitude = bits & 0x7fffffff
  if (magnitude > 0x7f800000) return sign | 0x7e00
  // 65520 and more round to infinity.
  if (magnitude >= 0x477ff000) return sign | 0x7c00
  if (magnitude >= 0x38800000) return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13)
  // A subnormal: units of 2^-24; Math.fround keeps what is below it exact until it is rounded here.
  const units = Math.abs(scratch[0]!) * 2 ** 24
  const floor = Math.floor(units)
  const rest = units - floor
  return sign | (floor + (rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? 1 : 0))
}

/** The number that half-precision bits stand for. */
export function fromHalf(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >>> 10) & 0x1f
  const fraction = bits & 0x3ff
  if (exponent === 0) return sign * fraction * 2 ** -24
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15)
}

function halves(values: Float32Array, name: string): Uint16Array {
  const result = new Uint16Array(values.length)
  for (let i = 0; i < values.length; i++) {
    result[i] = toHalf(values[i]!)
    if ((result[i]! & 0x7fff) === 0x7c00 && Number.isFinite(values[i]!)) throw outOfRange(values[i]!, name)
  }
  return result
}

/** As ggml's reference quantisation: every operation in float32, halves rounded away from zero. */
function toBlocks(values: Float32Array, name: string): Uint8Array {
  const { block, bytes } = typeInfo.q8_0
  const count = values.length / block
  const result = new Uint8Array(count * bytes)
  const view = new DataView(result.buffer)
  for (let b = 0; b < count; b++) {
    let largest = 0
    for (let i = 0; i < block; i++) largest = Math.max(largest, Math.abs(values[b * block + i]!))
    const scale = Math.fround(largest / 127)
    const inverse = scale === 0 ? 0 : Math.fround(1 / scale)
    const half = toHalf(scale)
    if ((half & 0x7fff) >= 0x7c00) throw outOfRange(largest, name)
    view.setUint16(b * bytes, half, true)
    for (let i = 0; i < block; i++) {
      const scaled = Math.fround(values[b * block + i]! * inverse)
      view.setInt8(b * bytes + 2 + i, Math.sign(scaled) * Math.floor(Math.abs(scaled) + 0.5))
    }
  }
  return result
}

function outOfRange(value: number, name: string): TunesmithError {
  return new TunesmithError(
    'ERR_GGUF_RANGE',
    `tensor ${name} holds ${value}, which half precision cannot: export with type 'bf16' or 'f32'`,
  )
}
