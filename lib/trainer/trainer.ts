/** The trainer: options in, a fine-tuned checkpoint out, events on the way. */
import { addPacking, noPacking, packingOf } from '../batch/packing.ts'
import { saveAdapter } from '../checkpoint/adapter/save.ts'
import { initialiseNewRows } from '../checkpoint/added-tokens.ts'
import { loadParameters } from '../checkpoint/load.ts'
import { lockOutput } from '../checkpoint/output.ts'
import { saveCheckpoint } from '../checkpoint/save.ts'
import { TunesmithError, type Warning } from '../errors.ts'
import type { NativeEngine } from '../native/addon.ts'
import { asTunesmithError } from '../native/error.ts'
import { addon } from '../native/load.ts'
import { checkRows, type Preview } from '../preview/preview.ts'
import { exportedAdapter, startAdapter } from './adapter.ts'
import { estimateSeconds } from './estimate.ts'
import { EvalClock, evaluate } from './evaluate.ts'
import {
  type EvalEvent,
  type FitResult,
  type SampleEvent,
  type StepEvent,
  TrainerEmitter,
  type TrainingPlan,
} from './events.ts'
import { trainingSteps } from './loop.ts'
import { MetricsFile } from './metrics.ts'
import { parseOptions, type ResolvedOptions, type TrainerOptions } from './options.ts'
import { takeSamples } from './samples.ts'
import { previewRows, type Report, type Setup, setUp } from './setup.ts'

export interface FitOptions {
  /** Ends the run between two layers' worth of work; fit() rejects with the signal's reason. */
  signal?: AbortSignal | undefined
}

/** Standard deviation of random weights where the config does not say (`initializer_range`), as in Transformers. */
const defaultInitializerRange = 0.02

/**
 * Fine-tunes a causal language model.
 *
 * ```ts
 * const trainer = new Trainer({ model: './SmolLM2-135M', data: { train: 'train.jsonl' }, output: './assistant' })
 * trainer.on('step', ({ step, loss }) => console.log(step, loss))
 * await trainer.fit()
 * ```
 *
 * @throws TunesmithError `ERR_UNKNOWN_OPTION`, `ERR_INVALID_OPTION`
 */
export class Trainer extends TrainerEmitter {
  readonly options: ResolvedOptions
  #running = false

  constructor(options: TrainerOptions) {
    super()
    this.options = parseOptions(options)
  }

  /**
   * What fit() would do: reads model, data and template, checks them as fit() does, measures a few layers for the
   * estimate of the time, and trains nothing.
   */
  async plan({ signal }: FitOptions = {}): Promise<TrainingPlan> {
    return this.#exclusively(async () => {
      const setup = await this.#setUp(signal)
      try {
        const plan = { ...setup.plan, estimatedSeconds: await estimateSeconds(setup) }
        this.emit('plan', plan)
        return plan
      } finally {
        setup.added?.release()
      }
    }, signal)
  }

  /**
   * The first `rows` [3] rows of the training data as fit() will see them, token by token with their loss weights, through
   * the same preparation; of a list of sources their rows in turn. Reads neither weights nor more data than that.
   * `terminalPreview`, `htmlPreview` and `jsonPreview` show what it returns.
   */
  async preview(rows?: number, { signal }: FitOptions = {}): Promise<Preview> {
    if (rows !== undefined) checkRows(rows)
    return this.#exclusively(() => previewRows(this.options, rows, this.#report(), signal), signal)
  }

  /**
   * Trains and writes the checkpoint to `output`, which is written whole or not at all.
   *
   * @throws TunesmithError with a code; the signal's reason when aborted; whatever a listener throws
   */
  async fit({ signal }: FitOptions = {}): Promise<FitResult> {
    return this.#exclusively(async () => {
      const warnings: Warning[] = []
      const setup = await this.#setUp(signal, warnings)
      let unlock = async () => {}
      try {
        this.emit('plan', setup.plan)
        unlock = await lockOutput(this.options.output)
        const metrics = await MetricsFile.open(this.options.output)
        try {
          await metrics.append('plan', setup.plan)
          for (const warning of warnings) await metrics.append('warning', warning)
          return await this.#train(setup, metrics, signal)
        } finally {
          await metrics.close()
        }
      } finally {
        setup.added?.release()
        await unlock()
      }
    }, signal)
  }

  async #exclusively<T>(work: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    if (this.#running) {
      throw new TunesmithError('ERR_BUSY', 'this trainer is running already; wait for it, or make another one')
    }
    this.#running = true
    try {
      signal?.throwIfAborted()
      return await work()
    } catch (error) {
      // What ended because of the signal ended for the signal's reason.
      if (error instanceof Error && 'code' in error && error.code === 'ERR_CANCELLED') signal?.throwIfAborted()
      throw asTunesmithError(error)
    } finally {
      this.#running = false
    }
  }

  #setUp(signal: AbortSignal | undefined, warnings: Warning[] = []): Promise<Setup> {
    return setUp(this.options, this.#report(warnings), signal)
  }

  /** Tells what comes up before there is a file for it; `warnings` keeps what is to be written there. */
  #report(warnings: Warning[] = []): Report {
    return {
      warning: (event) => {
        warnings.push(event)
        this.emit('warning', event)
      },
      prepare: (event) => this.emit('prepare', event),
    }
  }

  async #train(setup: Setup, metrics: MetricsFile, signal: AbortSignal | undefined): Promise<FitResult> {
    const engine = new (addon().Engine)(setup.engineOptions)
    const cancel = () => engine.cancel()
    signal?.addEventListener('abort', cancel, { once: true })
    try {
      await this.#loadWeights(setup, engine, metrics, signal)
      return await this.#run(setup, engine, metrics, signal)
    } finally {
      signal?.removeEventListener('abort', cancel)
      engine.close()
    }
  }

  async #loadWeights(
    { checkpoint, model, added, adapter }: Setup,
    engine: NativeEngine,
    metrics: MetricsFile,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    if (checkpoint) {
      const onProgress = (done: number, total: number) => this.emit('prepare', { stage: 'model', done, total })
      const warnings = await loadParameters(checkpoint, engine, { spec: model.spec, signal, onProgress })
      if (added) warnings.push(await initialiseNewRows(engine, added))
      for (const warning of warnings) await this.#warn(warning, metrics)
      if (adapter) await startAdapter(adapter, engine, this.options.seed, signal)
      return
    }
    const { initializer_range: range } = model.config.value
    await engine.initialize(this.options.seed, typeof range === 'number' ? range : defaultInitializerRange)
    await engine.commit()
  }

  async #run(
    setup: Setup,
    engine: NativeEngine,
    metrics: MetricsFile,
    signal: AbortSignal | undefined,
  ): Promise<FitResult> {
    const { options, train, evaluation, schedule, plan } = setup
    const history = { steps: [] as StepEvent[], evals: [] as EvalEvent[], samples: [] as SampleEvent[] }
    const start = {
      steps: plan.steps,
      epochs: plan.epochs,
      device: plan.device,
      precision: plan.precision,
      threads: plan.threads,
      parameters: plan.parameters,
      output: options.output,
    }
    await metrics.append('start', start)
    this.emit('start', start)

    const evaluateNow = async (step: number, epoch: number) => {
      if (!evaluation) return
      const event = { step, epoch, ...(await evaluate(engine, evaluation, options.microBatchTokens)) }
      history.evals.push(event)
      await metrics.append('eval', event)
      this.emit('eval', event)
    }

    const sampleNow = async (step: number, epoch: number) => {
      if (!setup.samples) return
      for await (const event of takeSamples(engine, setup.samples, { step, epoch, signal })) {
        history.samples.push(event)
        await metrics.append('sample', event)
        this.emit('sample', event)
      }
    }

    const began = performance.now()
    await evaluateNow(0, 0)
    await sampleNow(0, 0)
    const sampleClock = new EvalClock(options.samples?.every ?? options.evalEvery)
    const clock = new EvalClock(options.evalEvery)
    let totalTokens = 0
    let supervisedTokens = 0
    let stepBegan = performance.now()
    let packed = noPacking
    for await (const { packing, ...outcome } of trainingSteps({ engine, set: train, options, schedule })) {
      const tokensPerSecond = outcome.totalTokens / ((performance.now() - stepBegan) / 1000)
      const event: StepEvent = { ...outcome, microBatches: packing.microBatches, tokensPerSecond }
      packed = addPacking(packed, packing)
      totalTokens += event.totalTokens
      supervisedTokens += event.supervisedTokens
      history.steps.push(event)
      await metrics.append('step', event)
      this.emit('step', event)
      signal?.throwIfAborted()
      const { step, epoch } = outcome
      const elapsed = (performance.now() - began) / 1000
      if (clock.due(step, epoch, elapsed) || step === plan.steps) await evaluateNow(step, epoch)
      if (sampleClock.due(step, epoch, elapsed) || step === plan.steps) await sampleNow(step, epoch)
      stepBegan = performance.now()
    }
    const seconds = (performance.now() - began) / 1000

    await this.#save(setup, engine, metrics, signal)
    const last = history.steps.at(-1)!
    const result: FitResult = {
      output: options.output,
      metrics: metrics.path,
      steps: last.step,
      epochs: last.epoch,
      history,
      loss: last.loss,
      totalTokens,
      supervisedTokens,
      packing: packingOf(packed, options.microBatchTokens),
      seconds,
      data: setup.counts,
    }
    const { history: _, ...summary } = result
    await metrics.append('end', summary)
    this.emit('end', result)
    return result
  }

  async #save(
    { model, adapter, template, tokenizer, outputDtype, plan, options }: Setup,
    engine: NativeEngine,
    metrics: MetricsFile,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const common = {
      folder: options.output,
      model,
      tokenizerFolder: tokenizer.folder,
      chatTemplate: template?.source,
    }
    const stopTokenIds = (template?.stopTokens ?? tokenizer.stops).map(({ id }) => id)
    const warnings = adapter
      ? await saveAdapter({ ...common, ...exportedAdapter(adapter, engine) })
      : (await saveCheckpoint({ ...common, engine, dtype: outputDtype, stopTokenIds, signal })).warnings
    for (const warning of warnings) await this.#warn(warning, metrics)
    const event = { path: options.output, step: plan.steps }
    await metrics.append('checkpoint', event)
    this.emit('checkpoint', event)
  }

  async #warn(warning: Warning, metrics: MetricsFile): Promise<void> {
    await metrics.append('warning', warning)
    this.emit('warning', warning)
  }
}
