/** The adapter of a run: the one that its options describe, or the one that its model is. */
import { type Adapter, adapterTensors } from '../checkpoint/adapter/adapter.ts'
import { differenceAdapter } from '../checkpoint/adapter/difference.ts'
import { type AdaptedModule, adaptedModules, adapterSize, modelModules } from '../checkpoint/adapter/modules.ts'
import { baseName } from '../checkpoint/adapter/open-model.ts'
import { adapterSources, loadAdapter } from '../checkpoint/adapter/weights.ts'
import type { ModelDescription } from '../checkpoint/open.ts'
import { elementsOf } from '../checkpoint/safetensors-header.ts'
import { TunesmithError } from '../errors.ts'
import type { NativeEngine, ParameterGroup } from '../native/addon.ts'
import type { LoraOptions, ResolvedOptions } from './options.ts'

export interface RunAdapter {
  adapter: Adapter
  init: 'default' | 'pissa'
  /** With 'pissa': A and B as they began, by native name, which the saved adapter is to take away again. */
  beginning: Map<string, Uint8Array>
  /** How adapters train; absent: all alike, and nothing else. */
  groups: ParameterGroup[] | undefined
  /** Numbers that train. */
  count: number
}

const defaultRank = 16

/**
 * @param stored the adapter that `model` names, to be trained on
 * @throws ERR_INVALID_OPTION
 */
export function runAdapter(
  options: Pick<ResolvedOptions, 'adapter' | 'model' | 'train' | 'freeze' | 'parameterGroups'>,
  model: ModelDescription,
  stored: Adapter | undefined,
): RunAdapter | undefined {
  const given = options.adapter
  if (!given && !stored) return undefined
  if (stored) checkStored(options)
  const adapter = stored
    ? { ...stored, settings: { ...stored.settings, dropout: given?.dropout ?? stored.settings.dropout } }
    : newAdapter(given!, model, 'folder' in options.model ? options.model.folder : undefined)
  return {
    adapter,
    init: given?.init ?? 'default',
    beginning: new Map(),
    groups: groupsOf(adapter, given?.loraPlusRatio ?? 1),
    count: adapterSize(adapter.modules, adapter.settings.dora),
  }
}

function newAdapter(given: LoraOptions, model: ModelDescription, folder: string | undefined): Adapter {
  const rank = given.rank ?? defaultRank
  const settings = {
    rank,
    alpha: given.alpha ?? rank,
    dropout: given.dropout ?? 0,
    targets: given.targets ?? 'all-linear',
    rankPattern: given.rankPattern ?? {},
    alphaPattern: given.alphaPattern ?? {},
    rslora: given.rslora ?? false,
    dora: given.dora ?? false,
  }
  if (folder === undefined) {
    throw new TunesmithError(
      'ERR_INVALID_OPTION',
      'option adapter needs a checkpoint as model: an adapter of random weights belongs to nothing that could be loaded again',
    )
  }
  const modules = adaptedModules(settings, modelModules(model))
  if (given.init === 'pissa') checkRanks(modules)
  return { settings, modules, base: baseName(folder), stored: undefined }
}

function checkRanks(modules: readonly AdaptedModule[]): void {
  const wrong = modules.find(({ rank, inputs, outputs }) => rank > Math.min(inputs, outputs))
  if (!wrong) return
  const most = Math.min(wrong.inputs, wrong.outputs)
  throw new TunesmithError(
    'ERR_INVALID_OPTION',
    `option adapter.init: 'pissa' begins with singular values, and ${wrong.name} has ${most} of them, fewer than the rank ${wrong.rank}`,
  )
}

/** Puts the adapter's first weights beside the base that is loaded already. */
export async function startAdapter(
  { adapter, init, beginning }: RunAdapter,
  engine: NativeEngine,
  seed: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  if (adapter.stored) return loadAdapter(adapter, engine, signal)
  await engine.initializeAdapters(seed, init === 'pissa')
  await engine.commit()
  if (init !== 'pissa') return
  for (const { name, shape } of adapterTensors(adapter))
    beginning.set(name, await engine.read(name, 0, elementsOf(shape), 'float32'))
}

/** The adapter as it is saved. */
export function exportedAdapter({ adapter, init, beginning }: RunAdapter, engine: NativeEngine) {
  if (init === 'pissa') return differenceAdapter(adapter, beginning, engine)
  return { adapter, sources: adapterSources(adapter, engine) }
}

/** What an adapter is was settled when it began; how it is trained is not. */
function checkStored({ adapter, train, freeze, parameterGroups }: Parameters<typeof runAdapter>[0]): void {
  const settled = ['rank', 'alpha', 'targets', 'rankPattern', 'alphaPattern', 'rslora', 'dora', 'init'] as const
  const wrong = settled.filter((name) => adapter?.[name] !== undefined).map((name) => `adapter.${name}`)
  if (wrong.length > 0) {
    throw new TunesmithError(
      'ERR_INVALID_OPTION',
      `option ${wrong.join(', ')}: model is an adapter already, whose adapter_config.json says what it is: remove ` +
        `${wrong.length > 1 ? 'them' : 'it'}, or give the base as model to begin another`,
    )
  }
  const selects = { train, freeze, parameterGroups }
  for (const [name, value] of Object.entries(selects)) {
    if (value.length === 0) continue
    throw new TunesmithError(
      'ERR_INVALID_OPTION',
      `option ${name}: model is an adapter, and nothing but it trains: remove it`,
    )
  }
}

/** LoRA+ (arXiv 2402.12354): B, and as in PEFT every vector, learns faster than A. */
function groupsOf({ settings, modules }: Adapter, ratio: number): ParameterGroup[] | undefined {
  if (ratio === 1) return undefined
  const names = (suffix: string) => modules.map(({ native }) => `${native}.${suffix}`)
  const fast = [...names('lora_b'), ...(settings.dora ? names('lora_magnitude') : [])]
  return [{ names: names('lora_a') }, { names: fast, learningRateScale: ratio }]
}
