/** `tunesmith plan CONFIG`: what a run would do, without its first step. */
import { basename } from 'node:path'
import type { TrainingPlan } from '../trainer/events.ts'
import { type Command, exitCode, onlyPositional, readArguments, type Streams } from './command.ts'
import { loadConfig } from './config.ts'
import { dataLines } from './data-lines.ts'
import { bytes, count, duration, percent, plural, table } from './format.ts'
import { warningLine } from './progress-lines.ts'

const help = `usage: tunesmith plan CONFIG [--set key=value]... [--json]

Reads the model's shape and all the data, and prints what \`train\` would do: parameters, tokens, steps, memory, time.
Nothing is trained.

  CONFIG, --set     as in \`tunesmith train\`
  --json            the plan as one JSON object
`

async function run(args: string[], { stdout, stderr }: Streams): Promise<number> {
  const { values, positionals } = readArguments(args, {
    set: { type: 'string', multiple: true, default: [] },
    json: { type: 'boolean', default: false },
  })
  const config = loadConfig(onlyPositional(positionals, 'CONFIG'), values.set)
  const { Trainer } = await import('../trainer/trainer.ts')
  const trainer = new Trainer(config)
  trainer.on('warning', (event) => stderr.write(`${warningLine(event)}\n`))
  const result = await trainer.plan()
  stdout.write(values.json ? `${JSON.stringify(result)}\n` : `${planTable(result)}\n`)
  return exitCode.ok
}

/** The plan as aligned lines under headings. */
export function planTable(plan: TrainingPlan): string {
  const { memory, data } = plan
  const batch =
    plan.batchSize === undefined ? plural(plan.batchTokens ?? 0, 'token') : plural(plan.batchSize, 'conversation')
  const kinds = [
    ['parameters', memory.parameters],
    ['quantized weights', memory.quantized],
    ['prepared weights', memory.prepared],
    ['gradients', memory.gradients],
    ['optimizer state', memory.optimizer],
    ['activations', memory.activations],
    ['logits', memory.logits],
    ['scratch', memory.scratch],
    ['cache', memory.cache],
  ] as const
  return table([
    ['Model'],
    ['parameters', count(plan.parameters)],
    ['trained', `${count(plan.trainable)} (${percent(plan.trainable / plan.parameters)})`],
    ...(plan.trainable < plan.parameters ? [['frozen', count(plan.parameters - plan.trainable)] as const] : []),
    ...(plan.newTokens
      ? [['new tokens', plan.newTokens.map(({ text, id }) => `${text} (${id})`).join(', ')] as const]
      : []),
    ['chat template', plan.template],
    ...presetLines(plan.preset),
    ['Data'],
    ...formatLines(plan.formats),
    ['rows read', count(data.rows)],
    ['conversations', count(plan.conversations)],
    ...(plan.mixture ?? []).map(({ path, proportion, conversations, drawnPerEpoch }): [string, string] => [
      'per epoch',
      `${count(drawnPerEpoch)} from the ${count(conversations)} of ${basename(path)} (proportion ${proportion})`,
    ]),
    ['tokens', count(plan.tokens)],
    ['with loss', `${count(plan.supervisedTokens)} (${percent(plan.supervisedTokens / Math.max(1, plan.tokens))})`],
    ['longest', `${count(plan.longest.tokens)} tokens, ${plan.longest.source}`],
    [
      'for evaluation',
      plan.evalConversations === 0
        ? 'none'
        : `${plural(plan.evalConversations, 'conversation')}, ${plural(plan.evalTokens, 'token')}`,
    ],
    ...dataLines(data),
    ['Run'],
    ['steps', `${count(plan.steps)} (${count(plan.stepsPerEpoch)} per epoch, ${plural(plan.epochs, 'epoch')})`],
    ['per step', batch],
    ['at once', atOnce(plan)],
    ['warmup', plural(plan.warmupSteps, 'step')],
    ...(plan.samples
      ? [
          [
            'samples',
            `${plural(plan.samples.prompts, 'prompt')}, in a cache of ${plural(plan.samples.cacheTokens, 'token')}`,
          ] as const,
        ]
      : []),
    ['device', `${plan.device}, ${plan.precision}, ${plural(plan.threads, 'thread')}`],
    ['estimated time', plan.estimatedSeconds === undefined ? 'not known' : duration(plan.estimatedSeconds)],
    ['Memory'],
    ...kinds.filter(([, size]) => size > 0).map(([name, size]) => [name, bytes(size)] as const),
    ['total', bytes(memory.total)],
  ])
}

function presetLines(preset: TrainingPlan['preset']): ([string] | [string, string])[] {
  if (!preset) return []
  const sets = Object.entries(preset.sets).map(([key, value]): [string, string] => [key, JSON.stringify(value)])
  const own = preset.overridden.map((key): [string, string] => [key, "the run's own"])
  return [['Preset'], [preset.name, preset.source], ...sets, ...own]
}

/** How full micro-batches are. A step that is smaller than one cannot fill it, and a long conversation is more than one. */
function atOnce({ microBatchTokens, microBatches, packing, steps, stepsPerEpoch }: TrainingPlan): string {
  const { fill, padded } = packing
  const onAverage = `${count(fill * microBatchTokens)} on average`
  const because =
    fill > 1
      ? ': longer conversations go alone'
      : microBatches <= Math.min(steps, stepsPerEpoch)
        ? ', each of them a step'
        : ''
  return `up to ${count(microBatchTokens)} tokens (${onAverage}${because}); padding would make ${padded.toFixed(2)} times as many`
}

/** One line per file, or one per layout where files are many. */
function formatLines(formats: TrainingPlan['formats']): [string, string][] {
  if (formats.length <= 4) return formats.map(({ file, evidence }) => ['format', `${basename(file)}: ${evidence}`])
  const files = new Map<string, number>()
  for (const { format } of formats) files.set(format, (files.get(format) ?? 0) + 1)
  return [...files].map(([format, number]) => ['format', `${format} (${plural(number, 'file')})`])
}

export const plan: Command = {
  summary: 'tell what a configuration file would do: tokens, steps, memory, time',
  help,
  run,
}
