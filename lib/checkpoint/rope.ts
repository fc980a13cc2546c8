/**
 * Rotary position embedding (Su et al., arXiv 2104.09864): the inverse frequencies of a head, with the scalings that
 * extend a model's context:
 * - `linear`: position interpolation (arXiv 2306.15595);
 * - `dynamic`: NTK-aware scaling that begins where the trained context ends, so that within it nothing changes;
 * - `yarn` (arXiv 2309.00071): low frequencies interpolated, high ones kept, a ramp between, scores tempered;
 * - `longrope` (arXiv 2402.13753): a factor for each frequency, one set for short and one for long conversations;
 * - `llama3` (arXiv 2407.21783): long wavelengths are stretched, short ones kept, those between blended.
 *
 * Transformers computes them in float32, and at position 100,000 the rounding of a frequency is a visible angle. So
 * every operation here rounds to float32 at the same place; only pow may differ by one unit in the last place.
 */
import type { RopeTable } from '../native/addon.ts'

const f32 = Math.fround

export type RopeScaling =
  | { type: 'default' }
  | { type: 'linear'; factor: number }
  | { type: 'dynamic'; factor: number; maxPositions: number }
  | Yarn
  | LongRope
  | Llama3

export interface Yarn {
  type: 'yarn'
  factor: number
  /** Multiplies cos and sin. */
  attentionFactor: number
  betaFast: number
  betaSlow: number
  /** Rounds the ends of the ramp to whole dimensions. */
  truncate: boolean
  /** Context of the model before it was extended, in tokens. */
  originalMaxPositions: number
}

export interface LongRope {
  type: 'longrope'
  /** [rotaryDim / 2] each. */
  shortFactors: readonly number[]
  longFactors: readonly number[]
  attentionFactor: number
  /** Conversations of more tokens take the long factors. */
  originalMaxPositions: number
}

export interface Llama3 {
  type: 'llama3'
  factor: number
  lowFrequencyFactor: number
  highFrequencyFactor: number
  originalMaxPositions: number
}

/**
 * @param rotaryDim dimensions of a head that are turned, even
 * @param theta base of the geometric series of wavelengths
 * @returns one table; for longrope that of short conversations, then that of long ones
 */
export function ropeTables(rotaryDim: number, theta: number, scaling: RopeScaling): RopeTable[] {
  const table = (inverseFrequencies: Float64Array, scale = 1): RopeTable => ({ inverseFrequencies, scale })
  const powers = powersOf(rotaryDim, theta)
  const plain = powers.map((power) => f32(1 / power))
  switch (scaling.type) {
    case 'default':
      return [table(plain)]
    case 'linear':
      return [table(plain.map((frequency) => f32(frequency / f32(scaling.factor))))]
    case 'dynamic':
      return [table(powersOf(rotaryDim, dynamicTheta(rotaryDim, theta, scaling)).map((power) => f32(1 / power)))]
    case 'yarn':
      return [table(yarn(powers, rotaryDim, theta, scaling), scaling.attentionFactor)]
    case 'longrope':
      return [scaling.shortFactors, scaling.longFactors].map((factors) =>
        table(
          powers.map((power, index) => f32(1 / f32(f32(factors[index]!) * power))),
          scaling.attentionFactor,
        ),
      )
    case 'llama3':
      return [table(plain.map((frequency) => scaleLlama3(frequency, scaling)))]
  }
}

/** θ^(2i / dim): the wavelengths over 2π. */
function powersOf(dim: number, theta: number): Float64Array {
  const base = f32(theta)
  return Float64Array.from({ length: dim / 2 }, (_, index) => f32(base ** f32((2 * index) / dim)))
}

/** The base inside the trained context: `theta`, up to the rounding that Transformers' formula has in float64. */
function dynamicTheta(dim: number, theta: number, { factor, maxPositions }: RopeScaling & { type: 'dynamic' }): number {
  return theta * ((factor * maxPositions) / maxPositions - (factor - 1)) ** (dim / (dim - 2))
}

function yarn(powers: Float64Array, dim: number, theta: number, scaling: Yarn): Float64Array {
  // The dimension that turns this often within the original context.
  const correction = (turns: number): number =>
    (dim * Math.log(scaling.originalMaxPositions / (turns * 2 * Math.PI))) / (2 * Math.log(theta))
  const ends = [correction(scaling.betaFast), correction(scaling.betaSlow)]
  if (scaling.truncate) ends.splice(0, 2, Math.floor(ends[0]!), Math.ceil(ends[1]!))
  const low = Math.max(ends[0]!, 0)
  const high = Math.min(ends[1]!, dim - 1)
  const width = f32(low === high ? high + 0.001 - low : high - low)
  const factor = f32(scaling.factor)
  return powers.map((power, index) => {
    const ramp = Math.min(Math.max(f32(f32(index - f32(low)) / width), 0), 1)
    const kept = f32(1 - ramp)
    const interpolated = f32(1 / f32(factor * power))
    return f32(f32(interpolated * f32(1 - kept)) + f32(f32(1 / power) * kept))
  })
}

function scaleLlama3(frequency: number, scaling: Llama3): number {
  const { lowFrequencyFactor: low, highFrequencyFactor: high, originalMaxPositions: context } = scaling
  const factor = f32(scaling.factor)
  const wavelength = f32(f32(2 * Math.PI) / frequency)
  if (wavelength < f32(context / high)) return frequency
  if (wavelength > f32(context / low)) return f32(frequency / factor)
  const smooth = f32(f32(f32(context / wavelength) - f32(low)) / f32(high - low))
  const stretched = f32(f32(f32(1 - smooth) * frequency) / factor)
  return f32(stretched + f32(smooth * frequency))
}
