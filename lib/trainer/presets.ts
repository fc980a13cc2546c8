/** Published recipes by name: options that stand where a user gives none. */

import { conflicts } from './option-conflicts.ts'
import { isRecord } from './option-paths.ts'

export interface Preset {
  /** Where its numbers are from. */
  source: string
  options: Record<string, unknown>
}

/** Numbers that the source gives; whatever it leaves open keeps this package's defaults. */
export const presets = {
  llama2: {
    source: 'Llama 2, arXiv 2307.09288, section 3.1',
    options: {
      learningRate: 2e-5,
      schedule: 'cosine',
      weightDecay: 0.1,
      batchSize: 64,
      maxLength: 4096,
      epochs: 2,
      trainOn: 'assistant',
    },
  },
  tulu3: {
    source: 'Tülu 3 8B, allenai/open-instruct configs/train_configs/tulu3/tulu3_sft.yaml',
    options: {
      learningRate: 5e-6,
      schedule: 'linear',
      warmupRatio: 0.03,
      weightDecay: 0,
      batchSize: 128,
      maxLength: 4096,
      epochs: 2,
    },
  },
  lima: {
    source:
      'LIMA, arXiv 2305.11206, section 3 (65B; for smaller models it gives batchSize 64 and residualDropout [0, 0.2])',
    options: {
      learningRate: 1e-5,
      minLearningRate: 1e-6,
      schedule: 'linear',
      warmupSteps: 0,
      betas: [0.9, 0.95],
      weightDecay: 0.1,
      residualDropout: [0, 0.3],
      batchSize: 32,
      maxLength: 2048,
      onTooLong: 'truncate-right',
      epochs: 15,
    },
  },
  zephyr: {
    source: 'Zephyr 7B, huggingface/alignment-handbook recipes/zephyr-7b-beta/sft/config_full.yaml',
    options: {
      learningRate: 2e-5,
      schedule: 'cosine',
      warmupRatio: 0.1,
      batchSize: 128,
      maxLength: 2048,
      epochs: 1,
    },
  },
  smol: {
    source: 'SmolLM2 1.7B, huggingface/alignment-handbook recipes/smollm2/sft/config.yaml',
    options: {
      learningRate: 3e-4,
      schedule: 'cosine',
      warmupRatio: 0.1,
      batchSize: 128,
      maxLength: 8192,
      epochs: 2,
    },
  },
  lora: {
    source: 'LoRA Without Regret (Thinking Machines 2025): every linear layer, ten times the rate of full fine-tuning',
    options: { adapter: { type: 'lora', targets: 'all-linear' }, learningRate: 2e-4 },
  },
} satisfies Record<string, Preset>

export type PresetName = keyof typeof presets

/** A preset as one run uses it. */
export interface UsedPreset {
  name: PresetName
  source: string
  /** What it sets in this run. */
  sets: Record<string, unknown>
  /** Keys of its that the run's own options took the place of. */
  overridden: string[]
}

/** Options of which only one may be given: the run's own displaces the preset's. */
const exclusive: [string, string][] = [
  ['batchSize', 'batchTokens'],
  ['warmupRatio', 'warmupSteps'],
]

/**
 * The run's options with those of its preset below them. An option of the preset gives way where the run's own options
 * exclude it or leave it without effect, such as betas where the optimizer is SGD.
 *
 * @param input what the user gave; returned as it is where it names no preset that exists
 */
export function withPreset(input: Record<string, unknown>): { options: Record<string, unknown>; used?: UsedPreset } {
  const { preset: name, ...given } = input
  if (typeof name !== 'string' || !Object.hasOwn(presets, name)) return { options: input }
  const { source, options }: Preset = presets[name as PresetName]
  const own = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
  // Of an adapter each key gives way by itself.
  if (isRecord(own.adapter) && isRecord(options.adapter)) own.adapter = { ...options.adapter, ...own.adapter }
  const displaced = (key: string) =>
    key in own || exclusive.some((pair) => pair.includes(key) && pair.some((other) => other !== key && other in own))
  const sets = Object.fromEntries(Object.entries(options).filter(([key]) => !displaced(key)))
  for (const { path } of conflicts({ ...sets, ...own })) delete sets[path]
  const overridden = Object.keys(options).filter((key) => !(key in sets))
  return { options: { ...sets, ...own }, used: { name: name as PresetName, source, sets, overridden } }
}
