/**
 * The order of conversations in an epoch. It is a function of (seed, epoch, number of conversations) and of nothing
 * else: not of micro-batches, packing or the number of processes.
 */

/** Philox 4x32-10 (Salmon et al., SC 2011), the generator of native/core/rng.h: four 32-bit words per counter. */
export function philox(key: readonly [number, number], counter: readonly [number, number, number, number]) {
  let [k0, k1] = key
  let [c0, c1, c2, c3] = counter
  for (let round = 0; round < 10; round++) {
    const high0 = multiplyHigh(0xd2511f53, c0)
    const low0 = Math.imul(0xd2511f53, c0)
    const high1 = multiplyHigh(0xcd9e8d57, c2)
    const low1 = Math.imul(0xcd9e8d57, c2)
    c0 = high1 ^ c1 ^ k0
    c1 = low1
    c2 = high0 ^ c3 ^ k1
    c3 = low0
    k0 = (k0 + 0x9e3779b9) | 0
    k1 = (k1 + 0xbb67ae85) | 0
  }
  return [c0 >>> 0, c1 >>> 0, c2 >>> 0, c3 >>> 0] as const
}

/** Upper 32 bits of the unsigned product; 16-bit halves keep every partial product exact in a double. */
function multiplyHigh(a: number, b: number): number {
  const aLow = a & 0xffff
  const aHigh = a >>> 16
  const bLow = b & 0xffff
  const bHigh = b >>> 16
  const middle = aHigh * bLow + Math.floor((aLow * bLow) / 0x10000)
  const cross = aLow * bHigh + (middle % 0x10000)
  return (aHigh * bHigh + Math.floor(middle / 0x10000) + Math.floor(cross / 0x10000)) | 0
}

/** Names this stream among those that other parts derive from the same seed. */
const SHUFFLE_STREAM = 0x73687566

/**
 * The order in which epoch `epoch` (from 0) visits `count` conversations: a permutation, or 0..count-1 without
 * shuffling. `seed` is an integer from 0 to 2^53 - 1.
 */
export function epochOrder(
  count: number,
  { seed, epoch, shuffle }: { seed: number; epoch: number; shuffle: boolean },
): Uint32Array {
  if (shuffle) return permutation(count, seed, [0, epoch, SHUFFLE_STREAM])
  return Uint32Array.from({ length: count }, (_, i) => i)
}

/** A Fisher–Yates permutation of 0..count-1: a function of `seed` and of the three words that say what it is for. */
export function permutation(count: number, seed: number, words: readonly [number, number, number]): Uint32Array {
  const order = Uint32Array.from({ length: count }, (_, i) => i)
  const key = [seed % 2 ** 32, Math.floor(seed / 2 ** 32)] as const
  for (let i = count - 1; i > 0; i--) {
    const [high, low] = philox(key, [i, ...words])
    const uniform = (high * 2 ** 21 + (low >>> 11)) * 2 ** -53
    const j = Math.floor(uniform * (i + 1))
    const kept = order[i]!
    order[i] = order[j]!
    order[j] = kept
  }
  return order
}
