/** The values of a GGUF file's metadata and their bytes, as in the specification of GGUF 3 (little-endian). */

/** Numbers of types in the file. */
export const valueTypes = {
  uint32: 4,
  int32: 5,
  float32: 6,
  bool: 7,
  string: 8,
  array: 9,
} as const

export type ArrayType = 'uint32' | 'int32' | 'float32' | 'string'

export type MetadataValue =
  | { type: 'uint32' | 'int32' | 'float32'; value: number }
  | { type: 'bool'; value: boolean }
  | { type: 'string'; value: string }
  | { type: 'array'; of: ArrayType; value: readonly (number | string)[] }

export type Metadata = ReadonlyMap<string, MetadataValue>

export const uint32 = (value: number): MetadataValue => ({ type: 'uint32', value })
export const float32 = (value: number): MetadataValue => ({ type: 'float32', value })
export const bool = (value: boolean): MetadataValue => ({ type: 'bool', value })
export const string = (value: string): MetadataValue => ({ type: 'string', value })
export const array = (of: ArrayType, value: readonly (number | string)[]): MetadataValue => ({
  type: 'array',
  of,
  value,
})

/** Bytes that grow; what is written is small beside the weights. */
export class ByteWriter {
  #bytes = new Uint8Array(1 << 16)
  #view = new DataView(this.#bytes.buffer)
  #length = 0

  get length(): number {
    return this.#length
  }

  bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#length)
  }

  uint32(value: number): void {
    const at = this.#grow(4)
    this.#view.setUint32(at, value, true)
  }

  int32(value: number): void {
    const at = this.#grow(4)
    this.#view.setInt32(at, value, true)
  }

  uint64(value: number): void {
    const at = this.#grow(8)
    this.#view.setBigUint64(at, BigInt(value), true)
  }

  float32(value: number): void {
    const at = this.#grow(4)
    this.#view.setFloat32(at, value, true)
  }

  bool(value: boolean): void {
    const at = this.#grow(1)
    this.#bytes[at] = value ? 1 : 0
  }

  /** UTF-8 with its length before it. */
  string(value: string): void {
    const bytes = Buffer.from(value, 'utf8')
    this.uint64(bytes.length)
    const at = this.#grow(bytes.length)
    this.#bytes.set(bytes, at)
  }

  zeros(count: number): void {
    const at = this.#grow(count)
    this.#bytes.fill(0, at, at + count)
  }

  value(value: MetadataValue): void {
    this.uint32(valueTypes[value.type])
    if (value.type !== 'array') {
      this.#scalar(value.type, value.value)
      return
    }
    this.uint32(valueTypes[value.of])
    this.uint64(value.value.length)
    for (const element of value.value) this.#scalar(value.of, element)
  }

  #scalar(type: Exclude<MetadataValue['type'], 'array'>, value: number | string | boolean): void {
    if (type === 'string') this.string(value as string)
    else if (type === 'bool') this.bool(value as boolean)
    else this[type](value as number)
  }

  #grow(count: number): number {
    const at = this.#length
    this.#length += count
    if (this.#length > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(this.#length, 2 * this.#bytes.length))
      larger.set(this.#bytes.subarray(0, at))
      this.#bytes = larger
      this.#view = new DataView(larger.buffer)
    }
    return at
  }
}
