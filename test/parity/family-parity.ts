// How far one engine is from Transformers on one model: logits, loss, every gradient and ten AdamW steps.
import type { Checkpoint } from '../../lib/checkpoint/open.ts'
import { elementsOf } from '../../lib/checkpoint/safetensors-header.ts'
import { groupByTensor, tensorReader } from '../../lib/checkpoint/tensor-parts.ts'
import type { EngineOptions, NativeEngine } from '../../lib/native/addon.ts'
import { compareTensors, load, relativeError } from './engine.ts'
import { type FamilyCase, writeCase } from './family-cases.ts'

/** Relative errors: ‖a − b‖ / ‖b‖ of tensors, |a / b − 1| of numbers. */
export interface FamilyParity {
  logits: number
  /** The larger of evaluate()'s and accumulate()'s. */
  loss: number
  /** Per tensor of the checkpoint, largest first. */
  gradients: { name: string; error: number }[]
  /** [10] loss before each AdamW step. */
  steps: number[]
}

/** @param folder an empty one, for the checkpoint */
export async function measureFamily(
  folder: string,
  golden: FamilyCase,
  options: Partial<EngineOptions>,
): Promise<FamilyParity> {
  writeCase(folder, golden)
  const { engine, checkpoint } = await load(folder, golden.batch, options)
  try {
    const logits = relativeError(await engine.logits(golden.batch), golden.logits)
    const evaluated = await engine.evaluate(golden.batch)
    const sums = await engine.accumulate(golden.batch, golden.weightSum, true)
    const losses = [evaluated, sums].map(({ loss, weight }) => Math.abs(loss / weight / golden.loss - 1))
    const gradients = compareTensors(await storedGradients(engine, checkpoint), golden.gradients)
    const trained = await trainTenSteps(engine, golden)
    const steps = trained.map((loss, step) => Math.abs(loss / golden.losses[step]! - 1))
    return { logits, loss: Math.max(...losses), gradients, steps }
  } finally {
    engine.close()
  }
}

/**
 * Logits while decoding with a key/value cache: the first half of each conversation at once, then token by token, one
 * conversation after the other or all together. With longrope only the last row is that of the whole conversation, whose
 * length chooses the table.
 */
export async function measureDecoding(
  folder: string,
  golden: FamilyCase,
  options: Partial<EngineOptions>,
  together: boolean,
): Promise<number> {
  writeCase(folder, golden)
  const { tokens, cuSeqlens } = golden.batch
  const all = Array.from(cuSeqlens.slice(1), (end, slot) => ({ slot, begin: cuSeqlens[slot]!, end }))
  const cache = { cacheTokens: 64, cacheSequences: all.length }
  const { engine, checkpoint } = await load(folder, golden.batch, { training: false, ...cache, ...options })
  const { vocabSize, longRopeThreshold } = checkpoint.spec
  const [ours, theirs]: [number[], number[]] = [[], []]

  /** Of each conversation, tokens from row `from` on up to `to`. */
  const step = async (pieces: { slot: number; begin: number; end: number; from: number; to: number }[]) => {
    const ends = pieces.map((_, index) => pieces.slice(0, index + 1).reduce((sum, { from, to }) => sum + to - from, 0))
    const logits = await engine.extendAll({
      tokens: Int32Array.from(pieces.flatMap(({ from, to }) => [...tokens.slice(from, to)])),
      cuSeqlens: Int32Array.from([0, ...ends]),
      slots: Int32Array.from(pieces, ({ slot }) => slot),
      positions: Int32Array.from(pieces, ({ begin, from }) => from - begin),
    })
    for (const [index, { to, end }] of pieces.entries()) {
      if (longRopeThreshold > 0 && to < end) continue
      ours.push(...logits.subarray(index * vocabSize, (index + 1) * vocabSize))
      theirs.push(...golden.logits.subarray((to - 1) * vocabSize, to * vocabSize))
    }
  }
  try {
    for (const group of together ? [all] : all.map((conversation) => [conversation])) {
      let pieces = group.map((one) => ({ ...one, from: one.begin, to: one.begin + ((one.end - one.begin) >> 1) + 1 }))
      pieces = pieces.map((piece) => ({ ...piece, to: Math.min(piece.to, piece.end) }))
      while (pieces.length > 0) {
        await step(pieces)
        pieces = pieces
          .filter(({ to, end }) => to < end)
          .map((piece) => ({ ...piece, from: piece.to, to: piece.to + 1 }))
      }
    }
    return relativeError(ours, theirs)
  } finally {
    engine.close()
  }
}

/** Accumulated gradients in the layout of the checkpoint: fused and transposed as there. */
async function storedGradients(engine: NativeEngine, { family, spec }: Checkpoint): Promise<Map<string, Float64Array>> {
  const result = new Map<string, Float64Array>()
  for (const group of groupByTensor(family.parameters(spec))) {
    const { read } = tensorReader(group, 'float64', (...part) => engine.readGradient(...part), 2 ** 24)
    const bytes = await read(0, elementsOf(group.shape))
    result.set(group.tensor, new Float64Array(bytes.buffer, bytes.byteOffset, bytes.length / 8))
  }
  return result
}

/** Losses before each step; the settings of make_family_golden.py. */
async function trainTenSteps(engine: NativeEngine, { batch, weightSum }: FamilyCase): Promise<number[]> {
  const losses: number[] = []
  for (let step = 1; step <= 10; step++) {
    const { loss, weight } = await engine.accumulate(batch, weightSum, true)
    losses.push(loss / weight)
    await engine.optimizerStep({
      ...{ learningRate: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 },
      ...{ weightDecay: 0.1, maxGradNorm: 1, step },
    })
  }
  return losses
}
