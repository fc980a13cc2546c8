/**
 * Rotary position embedding (Su et al., arXiv 2104.09864): the inverse frequencies of a head, with the scalings that
 * extend a model's context: `linear` (position interpolation, arXiv 2306.15595) and `llama3` (Llama 3.1, arXiv
 * 2407.21783: long wavelengths are stretched, short ones kept, those between blended).
 *
 * Transformers computes them in float32, and at position 100,000 the rounding of a frequency is a visible angle. So
 * every operation here rounds to float32 at the same place; only pow may differ by one unit in the last place.
 */
const f32 = Math.fround

export type RopeScaling =
  | { type: 'default' }
  | { type: 'linear'; factor: number }
  | {
      type: 'llama3'
      factor: number
      lowFrequencyFactor: number
      highFrequencyFactor: number
      /** Context of the model before it was extended, in tokens. */
      originalMaxPositions: number
    }

/**
 * @param headDim size of an attention head, even
 * @param theta base of the geometric series of wavelengths
 * @returns [headDim / 2] angular frequencies in radians per position; float32 values
 */
export function inverseFrequencies(headDim: number, theta: number, scaling: RopeScaling): Float64Array {
  const base = f32(theta)
  return Float64Array.from({ length: headDim / 2 }, (_, index) => {
    const exponent = f32((2 * index) / headDim)
    const frequency = f32(1 / f32(base ** exponent))
    if (scaling.type === 'default') return frequency
    if (scaling.type === 'linear') return f32(frequency / f32(scaling.factor))
    return scaleLlama3(frequency, scaling)
  })
}

function scaleLlama3(frequency: number, scaling: RopeScaling & { type: 'llama3' }): number {
  const { lowFrequencyFactor: low, highFrequencyFactor: high, originalMaxPositions: context } = scaling
  const factor = f32(scaling.factor)
  const wavelength = f32(f32(2 * Math.PI) / frequency)
  if (wavelength < f32(context / high)) return frequency
  if (wavelength > f32(context / low)) return f32(frequency / factor)
  const smooth = f32(f32(f32(context / wavelength) - f32(low)) / f32(high - low))
  const stretched = f32(f32(f32(1 - smooth) * frequency) / factor)
  return f32(stretched + f32(smooth * frequency))
}
