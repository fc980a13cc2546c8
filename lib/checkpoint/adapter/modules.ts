/**
 * The projections of a model that an adapter can lie beside, under the names of the checkpoint's own code, and the
 * choice among them as PEFT makes it.
 */
import { TunesmithError } from '../../errors.ts'
import type { AdapterModule } from '../../native/addon.ts'
import { closest } from '../../trainer/option-names.ts'
import type { ParameterSource } from '../families/family.ts'
import type { ModelDescription } from '../open.ts'
import type { AdapterSettings } from './settings.ts'

/** One linear module of the checkpoint's code; several projections here where it is fused there. */
export interface ModelModule {
  /** Its name in Transformers, e.g. `model.layers.0.self_attn.q_proj`. */
  name: string
  /** Native name of its adapter, e.g. `layers.0.attention.q`. */
  native: string
  /** Native projections in the order of the rows of B. */
  parts: string[]
  /** Width of its input and of its output. */
  inputs: number
  outputs: number
  /** Stored as [inputs, outputs], as GPT-2's Conv1D; A and B are not. */
  transposed: boolean
  /** Which output of the module each native row is; undefined where they are in the same order. */
  rows: Int32Array | undefined
}

/** A module with its adapter. */
export interface AdaptedModule extends ModelModule {
  rank: number
  alpha: number
  /** Factor of B · A. */
  scale: number
}

const projection = /^layers\.\d+\.(attention\.[qkvo]|mlp\.(gate|up|down))\.weight$/

/** Every module of the layers, in their order. The head is none of them. */
export function modelModules({ family, spec }: Pick<ModelDescription, 'family' | 'spec'>): ModelModule[] {
  const groups = new Map<string, ParameterSource[]>()
  for (const source of family.parameters(spec)) {
    if (!projection.test(source.name)) continue
    groups.set(source.tensor, [...(groups.get(source.tensor) ?? []), source])
  }
  return [...groups].map(([tensor, parts]) => moduleOf(family.moduleName?.(tensor) ?? tensor, parts))
}

function moduleOf(tensor: string, sources: readonly ParameterSource[]): ModelModule {
  const parts = sources.map(({ name }) => name.slice(0, -'.weight'.length))
  const last = (part: string) => part.slice(part.lastIndexOf('.') + 1)
  return {
    name: tensor.replace(/\.weight$/, ''),
    native: [parts[0]!, ...parts.slice(1).map(last)].join('_'),
    parts,
    inputs: sources[0]!.shape[1]!,
    outputs: sources.reduce((sum, { shape }) => sum + shape[0]!, 0),
    transposed: sources[0]!.part?.transposed ?? false,
    rows: rowsOf(sources),
  }
}

/** See TensorPart: the rows of a fused tensor may lie head by head. */
function rowsOf(sources: readonly ParameterSource[]): Int32Array | undefined {
  const rows: number[] = []
  for (const { shape, part } of sources) {
    for (let n = 0; n < shape[0]!; n++) {
      rows.push(part ? part.first + Math.floor(n / part.block) * part.stride + (n % part.block) : n)
    }
  }
  return rows.every((row, index) => row === index) ? undefined : Int32Array.from(rows)
}

/**
 * The modules that `settings` choose, with their ranks and alphas.
 *
 * @throws ERR_INVALID_OPTION where a target or a pattern fits no module
 */
export function adaptedModules(settings: AdapterSettings, modules: readonly ModelModule[]): AdaptedModule[] {
  const chosen = chooseTargets(settings.targets, modules)
  checkPatterns('rankPattern', settings.rankPattern, chosen)
  checkPatterns('alphaPattern', settings.alphaPattern, chosen)
  return chosen.map((module) => withRank(module, settings))
}

/** Rank and alpha of a module: of the first pattern that fits its name, else the common ones. */
export function withRank(module: ModelModule, settings: AdapterSettings): AdaptedModule {
  const rank = matchingValue(settings.rankPattern, module.name) ?? settings.rank
  const alpha = matchingValue(settings.alphaPattern, module.name) ?? settings.alpha
  return { ...module, rank, alpha, scale: settings.rslora ? alpha / Math.sqrt(rank) : alpha / rank }
}

/** What the engine is told. */
export function engineModules(modules: readonly AdaptedModule[]): AdapterModule[] {
  return modules.map(({ native, parts, rank, scale }) => ({ name: native, parts, rank, scale }))
}

/** Numbers of the adapters, magnitudes included. */
export function adapterSize(modules: readonly AdaptedModule[], dora: boolean): number {
  return modules.reduce((sum, { rank, inputs, outputs }) => sum + rank * (inputs + outputs) + (dora ? outputs : 0), 0)
}

/** PEFT's target_modules: names or endings in a list; a text is a regular expression for whole names. */
function chooseTargets(targets: AdapterSettings['targets'], modules: readonly ModelModule[]): ModelModule[] {
  if (targets === 'all-linear') return [...modules]
  if (typeof targets === 'string') {
    const pattern = regularExpression('targets', `^(?:${targets})$`, targets)
    const chosen = modules.filter(({ name }) => pattern.test(name))
    if (chosen.length === 0) throw noModule('targets', targets, modules)
    return chosen
  }
  const fits = (name: string, target: string) => name === target || name.endsWith(`.${target}`)
  for (const target of targets)
    if (!modules.some(({ name }) => fits(name, target))) throw noModule('targets', target, modules)
  return modules.filter(({ name }) => targets.some((target) => fits(name, target)))
}

/** The value of the first pattern that fits the end of a name, as PEFT's get_pattern_key has it. */
function matchingValue(patterns: Record<string, number>, name: string): number | undefined {
  for (const [pattern, value] of Object.entries(patterns)) if (endPattern('', pattern).test(name)) return value
  return undefined
}

function checkPatterns(option: string, patterns: Record<string, number>, modules: readonly ModelModule[]): void {
  for (const pattern of Object.keys(patterns)) {
    const expression = endPattern(option, pattern)
    if (!modules.some(({ name }) => expression.test(name))) throw noModule(option, pattern, modules)
  }
}

function endPattern(option: string, pattern: string): RegExp {
  return regularExpression(option, `^(.*\\.)?(${pattern})$`, pattern)
}

function regularExpression(option: string, source: string, text: string): RegExp {
  try {
    return new RegExp(source)
  } catch (cause) {
    throw new TunesmithError(
      'ERR_INVALID_OPTION',
      `option adapter.${option}: '${text}' is no regular expression: ${(cause as Error).message}`,
      { cause },
    )
  }
}

function noModule(option: string, text: string, modules: readonly ModelModule[]): TunesmithError {
  const endings = [...new Set(modules.map(({ name }) => name.slice(name.lastIndexOf('.') + 1)))]
  const hint = closest(text, endings)
  // A text is matched with whole names, what stands in a list with their ends.
  if (hint === text) {
    return new TunesmithError(
      'ERR_INVALID_OPTION',
      `option adapter.${option}: no whole name matches the regular expression '${text}'; give a list for the ends of ` +
        `names: ["${text}"].`,
    )
  }
  const why = /head|embed|wte/.test(text) ? ' Adapters lie beside the projections of the layers only.' : ''
  return new TunesmithError(
    'ERR_INVALID_OPTION',
    `option adapter.${option}: no ${option === 'targets' ? 'projection' : 'projection with an adapter'} is called ` +
      `'${text}'${hint ? `; did you mean '${hint}'?` : '.'}${why} Here are ${endings.join(', ')}, such as ${modules[0]!.name}.`,
  )
}
