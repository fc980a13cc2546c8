/** Which parameters train, and how: `train`, `freeze` and `parameterGroups`, resolved to the parameters of one model. */
import { vocabularyParameters } from '../checkpoint/added-tokens.ts'
import type { ParameterSource } from '../checkpoint/families/family.ts'
import { TunesmithError } from '../errors.ts'
import type { ParameterGroup } from '../native/addon.ts'
import type { ResolvedOptions } from './options.ts'
import { matching, nameNear } from './tensor-pattern.ts'

export interface Trainable {
  /** For the engine; absent where every parameter trains alike. */
  groups: ParameterGroup[] | undefined
  /** Numbers that train. */
  count: number
}

type Selection = Pick<ResolvedOptions, 'train' | 'freeze' | 'parameterGroups'>

/** In `train`: the rows of `addTokens` in embedding and head. */
export const newTokens = 'new-tokens'

/**
 * What trains is what `train` matches (default: everything) without what `freeze` matches. Each of these belongs to the
 * first of `parameterGroups` that matches it, or to none. 'new-tokens' in `train` stands for the rows of tables whose
 * other rows stay as they are.
 *
 * @param sources every parameter of the model, with its name in the checkpoint
 * @param rows the rows of new tokens, where there are any
 * @throws ERR_NO_SUCH_TENSOR where a pattern matches nothing; ERR_NOTHING_TRAINED; ERR_INVALID_OPTION where a group is left
 *   without a parameter
 */
export function selectTrainable(
  options: Selection,
  sources: readonly ParameterSource[],
  rows?: { first: number; count: number },
): Trainable {
  const { train, freeze, parameterGroups } = options
  const find = (option: string, pattern: string) => {
    const found = matching(pattern, sources)
    if (found.size === 0) throw noSuchTensor(option, pattern, sources)
    return found
  }
  const patterns = train.filter((pattern) => pattern !== newTokens)
  const chosen = new Set(train.length === 0 ? sources : patterns.flatMap((pattern) => [...find('train', pattern)]))
  for (const pattern of freeze) for (const source of find('freeze', pattern)) chosen.delete(source)
  const tables =
    rows && train.includes(newTokens)
      ? sources.filter((source) => vocabularyParameters.includes(source.name) && !chosen.has(source))
      : []
  if (chosen.size === 0 && tables.length === 0) {
    throw new TunesmithError('ERR_NOTHING_TRAINED', 'option freeze matches everything that would be trained')
  }
  const rest = new Set(chosen)
  const groups: ParameterGroup[] = parameterGroups.map(({ pattern, learningRateScale, weightDecay }, index) => {
    const taken = [...find(`parameterGroups[${index}].pattern`, pattern)].filter((source) => rest.delete(source))
    if (taken.length === 0) throw emptyGroup(index, pattern)
    return {
      names: namesOf(taken, sources),
      ...(learningRateScale !== undefined && { learningRateScale }),
      ...(weightDecay !== undefined && { weightDecay }),
    }
  })
  if (rest.size > 0) groups.push({ names: namesOf([...rest], sources) })
  if (tables.length > 0) groups.push({ names: namesOf(tables, sources), rows: Int32Array.of(rows!.first, rows!.count) })
  const everything = groups.length === 1 && parameterGroups.length === 0 && chosen.size === sources.length
  return {
    groups: everything ? undefined : groups,
    count:
      sum([...chosen].map(({ shape }) => product(shape))) +
      sum(tables.map(({ shape }) => rows!.count * product(shape.slice(1)))),
  }
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}

function product(shape: readonly number[]): number {
  return shape.reduce((result, size) => result * size, 1)
}

/** In the order of the model. */
function namesOf(chosen: readonly ParameterSource[], sources: readonly ParameterSource[]): string[] {
  const set = new Set(chosen)
  return sources.filter((source) => set.has(source)).map(({ name }) => name)
}

function noSuchTensor(option: string, pattern: string, sources: readonly ParameterSource[]): TunesmithError {
  const near = nameNear(pattern, sources)
  const tied = /head/.test(pattern) && !sources.some(({ name }) => name === 'head.weight')
  const hint = tied
    ? `The head of this model is tied to its embedding, ${sources.find(({ name }) => name === 'embedding.weight')?.tensor}.`
    : near.length > 0
      ? `Near it: ${near.join(', ')}.`
      : `Names of this model are, for example, ${examples(sources).join(', ')}.`
  return new TunesmithError(
    'ERR_NO_SUCH_TENSOR',
    `option ${option}: no tensor of the model matches '${pattern}'. ${hint}`,
  )
}

function examples(sources: readonly ParameterSource[]): string[] {
  return [0, 0.5, 1].map((share) => sources[Math.round(share * (sources.length - 1))]!.tensor)
}

function emptyGroup(index: number, pattern: string): TunesmithError {
  return new TunesmithError(
    'ERR_INVALID_OPTION',
    `option parameterGroups[${index}].pattern: what '${pattern}' matches is frozen or belongs to an earlier group; remove it, or move it up`,
  )
}
