/**
 * Mixtures: how many conversations of each entry of `data.train` an epoch draws, and which. The draw is a function of
 * seed, epoch and the mixture itself, and of nothing else.
 *
 * An entry of n conversations and proportion p gives every epoch ⌊p⌋ times all of them, and round((p - ⌊p⌋)·n) more. These
 * go round one fixed permutation of the entry (its own order without shuffling), starting where the epoch before ended:
 * no conversation is drawn again before all others have had their turn.
 */
import type { DataEntry } from '../data/paths.ts'
import { resolveFiles } from '../data/paths.ts'
import { TunesmithError } from '../errors.ts'
import { conversationCount, type ExampleSet, exampleSet } from './example-set.ts'
import { epochOrder, permutation } from './sampler.ts'

/** The conversations of one entry; those of all entries lie one after another. */
export interface Part {
  /** As the options name it. */
  path: string
  conversations: number
  proportion: number
}

export interface Draw {
  seed: number
  /** From 0. */
  epoch: number
  shuffle: boolean
}

/** Names this stream among those that other parts derive from the same seed. */
const MIXTURE_STREAM = 0x6d697874

/** Conversations that an epoch draws from a part: at least one of a part that has any. */
export function drawnPerEpoch({ conversations, proportion }: Part): number {
  return conversations === 0
    ? 0
    : Math.max(1, Math.floor(proportion) * conversations + extra(conversations, proportion))
}

/** Conversations of a part that a run of `epochs` (a fraction counts as a whole epoch) never draws. */
export function neverDrawn(part: Part, epochs: number): number {
  return Math.max(0, part.conversations - drawnPerEpoch(part) * Math.ceil(epochs))
}

function extra(conversations: number, proportion: number): number {
  return Math.round((proportion - Math.floor(proportion)) * conversations)
}

/** What an epoch of a mixture takes of one entry. */
export interface MixturePart extends Part {
  drawnPerEpoch: number
  /** Conversations that a run of so many epochs never draws. */
  neverDrawn: number
}

/** The parts of a mixture over a run; undefined where `set` is none. */
export function mixtureParts({ parts }: ExampleSet, epochs: number): MixturePart[] | undefined {
  return parts?.map((part) => ({ ...part, drawnPerEpoch: drawnPerEpoch(part), neverDrawn: neverDrawn(part, epochs) }))
}

/** Tokens of the first epoch, and those that carry loss. */
export function epochTokens(set: ExampleSet, draw: Omit<Draw, 'epoch'>): { tokens: number; supervisedTokens: number } {
  if (set.parts === undefined) return set
  let tokens = 0
  let supervisedTokens = 0
  for (const conversation of epochDraw(set, { ...draw, epoch: 0 })) {
    for (let i = set.starts[conversation]!; i < set.starts[conversation + 1]!; i++) {
      tokens += set.examples[i]!.ids.length
      supervisedTokens += set.supervised[i]!
    }
  }
  return { tokens, supervisedTokens }
}

/** The order in which an epoch visits the conversations of `set`: all of them, or what a mixture draws. */
export function epochDraw(set: ExampleSet, { seed, epoch, shuffle }: Draw): Uint32Array {
  if (set.parts === undefined) return epochOrder(conversationCount(set), { seed, epoch, shuffle })
  const drawn = new Uint32Array(set.parts.reduce((sum, part) => sum + drawnPerEpoch(part), 0))
  let first = 0
  let used = 0
  for (const [index, part] of set.parts.entries()) {
    const indices = drawPart(part, index, { seed, epoch, shuffle })
    for (let i = 0; i < indices.length; i++) drawn[used + i] = first + indices[i]!
    used += indices.length
    first += part.conversations
  }
  return epochOrder(drawn.length, { seed, epoch, shuffle }).map((index) => drawn[index]!)
}

/** Indices into the part, ascending. */
function drawPart(part: Part, index: number, { seed, epoch, shuffle }: Draw): Uint32Array {
  const { conversations, proportion } = part
  const total = drawnPerEpoch(part)
  const drawn = new Uint32Array(total)
  const whole = Math.floor(proportion) * conversations
  for (let i = 0; i < whole; i++) drawn[i] = i % conversations
  const more = total - whole
  if (more > 0) {
    const order = shuffle ? permutation(conversations, seed, [index, 0, MIXTURE_STREAM]) : undefined
    const start = (more * epoch) % conversations
    for (let i = 0; i < more; i++) {
      const at = (start + i) % conversations
      drawn[whole + i] = order ? order[at]! : at
    }
  }
  return drawn.sort()
}

/**
 * A set in which each conversation lies as often as one epoch can draw it: what the largest micro-batch has to be looked
 * for in.
 */
export function mostDrawn(set: ExampleSet): ExampleSet {
  const { parts } = set
  if (parts === undefined) return set
  const proportions = parts.flatMap(({ conversations, proportion }) => Array<number>(conversations).fill(proportion))
  const conversations = proportions.flatMap((proportion, index) => {
    const examples = set.examples.slice(set.starts[index]!, set.starts[index + 1]!)
    return Array.from({ length: Math.ceil(proportion) }, () => examples)
  })
  return exampleSet(conversations)
}

/**
 * `set` with the parts that `entries` make it of; the set itself where every entry is used once per epoch.
 *
 * @throws TunesmithError `ERR_INVALID_OPTION` where two entries of a mixture name the same file, as resolveFiles.
 */
export async function asMixture(set: ExampleSet, entries: readonly DataEntry[]): Promise<ExampleSet> {
  if (entries.every(({ proportion = 1 }) => proportion === 1)) return set
  const entryOf = new Map<string, number>()
  for (const [index, entry] of entries.entries()) {
    for (const { path } of await resolveFiles([entry])) {
      if (entryOf.has(path)) {
        throw new TunesmithError(
          'ERR_INVALID_OPTION',
          `option data.train names ${path} in two entries of a mixture; name it once, with the sum of their proportions`,
        )
      }
      entryOf.set(path, index)
    }
  }
  const parts = entries.map(({ path, proportion = 1 }): Part => ({ path, conversations: 0, proportion }))
  for (let i = 0; i < conversationCount(set); i++) {
    parts[entryOf.get(set.examples[set.starts[i]!]!.source.file)!]!.conversations++
  }
  return { ...set, parts }
}
