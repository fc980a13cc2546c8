/** Everything that comes before the first step: model, tokenizer, template, data, device and the plan of the run. */
import { conversationCount, type ExampleSet } from '../batch/example-set.ts'
import { epochTokens, type MixturePart, mixtureParts, mostDrawn } from '../batch/mixture.ts'
import { packingOf } from '../batch/packing.ts'
import { prepare } from '../batch/prepare.ts'
import type { DataCounts, PrepareOptions } from '../batch/prepared.ts'
import { type MicroBatchLimits, microBatchLimits } from '../batch/steps.ts'
import type { ChatTemplate } from '../chat/template.ts'
import { Tokenizer } from '../chat/tokenizer.ts'
import { engineAdapters } from '../checkpoint/adapter/adapter.ts'
import { openModel } from '../checkpoint/adapter/open-model.ts'
import { adapterBytes } from '../checkpoint/adapter/save.ts'
import { type ExtendedTokenizer, extendTokenizer, withVocabulary } from '../checkpoint/added-tokens.ts'
import { type Checkpoint, checkVocabulary, describeModel, type ModelDescription } from '../checkpoint/open.ts'
import { checkOutput, refuseSource } from '../checkpoint/output.ts'
import { checkpointBytes } from '../checkpoint/save.ts'
import { place } from '../data/source.ts'
import { TunesmithError, type Warning } from '../errors.ts'
import { localData } from '../hub/local.ts'
import type { HubHooks } from '../hub/repo.ts'
import type { EngineOptions, StorageType } from '../native/addon.ts'
import { addon } from '../native/load.ts'
import { type Preview, previewData } from '../preview/preview.ts'
import { type RunAdapter, runAdapter } from './adapter.ts'
import { courseLength } from './course.ts'
import { chooseDevice, type Device } from './device.ts'
import type { PrepareEvent, TrainingPlan } from './events.ts'
import type { ResolvedOptions } from './options.ts'
import { engineRegularisation } from './regularisation.ts'
import { prepareSamples, type Samples } from './samples.ts'
import { type Schedule, warmupStepsOf } from './schedule.ts'
import { embeddingReader, examineTemplate, judgeFindings } from './template-check.ts'
import { selectTrainable } from './trainable.ts'

export interface Setup {
  options: ResolvedOptions
  model: ModelDescription
  /** The weights to start from; absent with random initialisation. */
  checkpoint: Checkpoint | undefined
  /** The tokenizer with the tokens of `addTokens`; to be released when the run is over. */
  added: ExtendedTokenizer | undefined
  /** Absent where the weights themselves are trained. */
  adapter: RunAdapter | undefined
  tokenizer: Tokenizer
  /** Absent where all rows are plain text. */
  template: ChatTemplate | undefined
  train: ExampleSet
  /** Absent where nothing is held out. */
  evaluation: ExampleSet | undefined
  /** Absent without the option `samples`. */
  samples: Samples | undefined
  counts: DataCounts
  device: Device
  engineOptions: EngineOptions
  schedule: Schedule
  outputDtype: StorageType
  plan: TrainingPlan
}

/** Where what happens meanwhile is told. */
export interface Report {
  warning(event: Warning): void
  prepare(event: PrepareEvent): void
}

/**
 * Reads and checks everything. Nothing is written but the output folder itself, and no weights are loaded.
 *
 * @throws TunesmithError for whatever is wrong with the options, the model, the data or the output
 */
export async function setUp(options: ResolvedOptions, report: Report, signal?: AbortSignal): Promise<Setup> {
  const hub = hubHooks(report, signal)
  const { model, checkpoint, stored, tokenizer, added, warnings } = await openBase(options, hub)
  for (const warning of warnings) report.warning(warning)
  const adapter = runAdapter(options, model, stored)
  if (options.quantization && !adapter) throw quantizedWithoutAdapter(options.quantization)
  const outputDtype = options.outputDtype ?? model.sourceDtype
  await refuseSource(options.output, stored?.stored?.folder)
  const outputWarnings = await checkOutput(options.output, {
    source: model.folder,
    bytes: adapter
      ? (adapter.init === 'pissa' ? 2 : 1) * adapterBytes(adapter.adapter)
      : checkpointBytes(model, outputDtype),
  })
  const device = chooseDevice(addon(), options)
  for (const warning of device.warnings) report.warning(warning)
  signal?.throwIfAborted()

  const prepared = { ...options, data: await localFiles(options, hub), maxLength: maxLengthOf(options, model) }
  const data = await prepare(prepared, tokenizer, {
    ...(signal && { signal }),
    onProgress: ({ rows, cached }) => report.prepare({ stage: 'data', done: rows, ...(cached && { cached }) }),
  })
  for (const warning of [...data.warnings, ...outputWarnings]) report.warning(warning)
  if (data.template) {
    // New tokens have no embeddings yet to be judged.
    const findings = await examineTemplate(prepared, tokenizer, added ? undefined : checkpoint, signal)
    for (const warning of judgeFindings(findings)) report.warning(warning)
  }

  const samples =
    options.samples && (await prepareSamples(options.samples, tokenizer, data.template, model.spec.maxPositions))
  const sources = model.family.parameters(model.spec)
  const trainable =
    adapter ?? selectTrainable(options, sources, added && { first: added.first, count: added.tokens.length })
  const engineOptions = {
    ...engineFor(options, model, device, data.train, data.eval, samples),
    ...engineRegularisation(options),
    ...(trainable.groups && { trainable: trainable.groups }),
    ...(adapter && { adapters: engineAdapters(adapter.adapter) }),
    ...(options.quantization && {
      quantization: options.quantization,
      doubleQuantization: options.doubleQuantization,
    }),
  }
  const length = courseLength(data.train, options)
  const schedule: Schedule = {
    totalSteps: length.steps,
    warmupSteps: warmupStepsOf(options.warmup, length.steps),
    schedule: options.schedule,
    learningRate: options.learningRate,
    minLearningRate: options.minLearningRate,
  }
  if (schedule.warmupSteps >= schedule.totalSteps) report.warning(onlyWarmup(schedule))
  const { tokens, supervisedTokens } = epochTokens(data.train, options)
  const mixture = mixtureParts(data.train, length.epochs)
  for (const part of mixture ?? []) if (part.neverDrawn > 0) report.warning(neverDrawn(part, length.epochs))
  const parameters = sources.reduce((sum, { shape }) => sum + product(shape), adapter?.count ?? 0)
  const longest = data.train.examples[data.train.longest]!
  const plan: TrainingPlan = {
    ...(options.preset && { preset: options.preset }),
    ...(added && { newTokens: added.tokens.map((text, index) => ({ text, id: added.first + index })) }),
    parameters,
    trainable: trainable.count,
    conversations: conversationCount(data.train),
    evalConversations: data.eval ? conversationCount(data.eval) : 0,
    tokens,
    supervisedTokens,
    evalTokens: data.eval?.tokens ?? 0,
    longest: { tokens: longest.ids.length, source: place(longest.source) },
    steps: length.steps,
    stepsPerEpoch: length.stepsPerEpoch,
    epochs: length.epochs,
    warmupSteps: schedule.warmupSteps,
    ...('conversations' in options.batch
      ? { batchSize: options.batch.conversations }
      : { batchTokens: options.batch.tokens }),
    microBatchTokens: options.microBatchTokens,
    microBatches: length.packing.microBatches,
    packing: packingOf(length.packing, options.microBatchTokens),
    memory: addon().plan(engineOptions),
    ...(samples && { samples: { prompts: samples.prompts.length, cacheTokens: samples.cacheTokens } }),
    device: device.backend,
    precision: device.compute,
    threads: device.threads,
    template: data.template?.name ?? 'none',
    formats: data.formats,
    ...(mixture && { mixture }),
    data: data.counts,
  }
  return {
    options,
    model,
    checkpoint,
    added,
    adapter,
    tokenizer,
    template: data.template,
    train: data.train,
    evaluation: data.eval,
    samples,
    counts: data.counts,
    device,
    engineOptions,
    schedule,
    outputDtype,
    plan,
  }
}

function hubHooks(report: Report, signal: AbortSignal | undefined): HubHooks {
  return {
    onProgress: (done, total) => report.prepare({ stage: 'download', done, total }),
    onWarning: (warning) => report.warning(warning),
    signal,
  }
}

/** The model without its weights, and the tokenizer: what data is prepared for. */
async function openBase(options: ResolvedOptions, hub: HubHooks) {
  const found = await findModel(options, hub)
  const { addTokens } = options
  if (addTokens.length > 0 && found.stored) {
    throw new TunesmithError(
      'ERR_INVALID_OPTION',
      'option addTokens: model is an adapter, which has no rows for new tokens. Merge it into its base, or add them to the ' +
        'base in a run of its own first.',
    )
  }
  const added = addTokens.length > 0 ? await extendTokenizer(found.tokenizerFolder, addTokens) : undefined
  const tokenizer = await Tokenizer.load(added?.folder ?? found.tokenizerFolder)
  const { spec } = found.model
  const model = added ? { ...found.model, spec: withVocabulary(spec, tokenizer.vocabSize) } : found.model
  checkVocabulary(model.spec, tokenizer.vocabSize)
  return { ...found, model, tokenizer, added }
}

/** The options' data with what lies on the hub fetched. */
async function localFiles({ data }: ResolvedOptions, hub: HubHooks): Promise<PrepareOptions['data']> {
  return {
    ...data,
    train: await localData(data.train, 'train', hub),
    eval: await localData(data.eval, 'eval', hub),
  }
}

/** Rows that are shown where no number is given. */
const PREVIEW_ROWS = 3

/** The first `rows` rows as training would see them. Nothing is written, neither weights nor a device are needed. */
export async function previewRows(
  options: ResolvedOptions,
  rows: number | undefined,
  report: Report,
  signal?: AbortSignal,
): Promise<Preview> {
  const hub = hubHooks(report, signal)
  const { model, checkpoint, tokenizer, added } = await openBase(options, hub)
  const prepared = { ...options, data: await localFiles(options, hub), maxLength: maxLengthOf(options, model) }
  const preview = await previewData(prepared, tokenizer, rows ?? PREVIEW_ROWS, {
    signal,
    embedding: embeddingReader(added ? undefined : checkpoint),
  })
  added?.release()
  const { counts, warnings } = preview
  if (rows !== undefined && counts.rows < rows)
    warnings.push({
      code: 'WARN_FEW_ROWS',
      message: `The data has ${counts.rows} ${counts.rows === 1 ? 'row' : 'rows'}; ${rows} were asked for`,
    })
  for (const warning of warnings) report.warning(warning)
  return preview
}

async function findModel({ model }: ResolvedOptions, hub: HubHooks) {
  if ('folder' in model) {
    const { checkpoint, adapter: stored, tokenizerFolder, warnings } = await openModel(model.folder, hub)
    const description: ModelDescription = checkpoint
    return { model: description, checkpoint, stored, tokenizerFolder, warnings }
  }
  const description = await describeModel(model.config)
  const { warnings } = description
  return { model: description, checkpoint: undefined, stored: undefined, tokenizerFolder: model.tokenizer, warnings }
}

function quantizedWithoutAdapter(quantization: string): TunesmithError {
  return new TunesmithError(
    'ERR_INVALID_OPTION',
    `option quantization is '${quantization}', but there is no adapter: quantised weights cannot be trained themselves. ` +
      "Add adapter: { type: 'lora' } (that is QLoRA), or remove quantization.",
  )
}

function onlyWarmup({ totalSteps, warmupSteps, learningRate }: Schedule): Warning {
  const run = totalSteps === 1 ? 'The only step of this run is warmup: its' : `All ${totalSteps} steps are warmup: the`
  const highest = totalSteps === 1 ? 0 : (learningRate * (totalSteps - 1)) / warmupSteps
  return {
    code: 'WARN_ONLY_WARMUP',
    message:
      `${run} learning rate ${totalSteps === 1 ? 'is' : 'reaches'} ${highest} instead of ${learningRate}. ` +
      'Set warmupSteps to 0, or train for more steps.',
  }
}

function neverDrawn({ path, proportion, conversations, neverDrawn: count }: MixturePart, epochs: number): Warning {
  const share = `${count} of ${conversations} conversations`
  return {
    code: 'WARN_NEVER_DRAWN',
    message: `${path} has the proportion ${proportion}: ${share} are never drawn in ${epochsText(epochs)}`,
  }
}

function epochsText(epochs: number): string {
  const rounded = Number(epochs.toFixed(2))
  return rounded === 1 ? '1 epoch' : `${rounded} epochs`
}

function maxLengthOf({ maxLength, preset }: ResolvedOptions, { spec }: ModelDescription): number {
  // That of a preset was chosen for another model.
  if (preset?.sets.maxLength !== undefined) return Math.min(maxLength!, spec.maxPositions)
  if (maxLength === undefined || maxLength <= spec.maxPositions) return maxLength ?? spec.maxPositions
  throw new TunesmithError(
    'ERR_INVALID_OPTION',
    `maxLength is ${maxLength}, but the model's context is ${spec.maxPositions} tokens (max_position_embeddings); it must not be longer`,
  )
}

/** Room for the largest micro-batch of either side, and a rotary table as long as the longest conversation. */
function engineFor(
  options: ResolvedOptions,
  { spec }: ModelDescription,
  { backend, compute, threads }: Device,
  train: ExampleSet,
  evaluation: ExampleSet | undefined,
  samples: Samples | undefined,
): EngineOptions {
  const limits = [microBatchLimits(mostDrawn(train), options.microBatchTokens, options.batch)]
  if (evaluation) limits.push(microBatchLimits(evaluation, options.microBatchTokens))
  const largest = (key: keyof MicroBatchLimits) => Math.max(...limits.map((limit) => limit[key]))
  const sets = evaluation ? [train, evaluation] : [train]
  const longest = Math.max(...sets.map(({ examples, longest }) => examples[longest]!.ids.length))
  return {
    backend,
    compute,
    threads,
    spec: { ...spec, maxPositions: Math.max(longest, samples?.cacheTokens ?? 0) },
    training: true,
    optimizer: options.optimizer === 'sgd' && options.momentum > 0 ? 'momentum' : options.optimizer,
    recompute: options.recompute,
    maxTokens: largest('tokens'),
    maxSupervised: largest('supervised'),
    maxSequences: largest('sequences'),
    cacheTokens: samples?.cacheTokens ?? 0,
  }
}

function product(shape: readonly number[]): number {
  return shape.reduce((result, size) => result * size, 1)
}
