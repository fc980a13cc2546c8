/**
 * The schema of TrainerOptions, of the parts in option-parts.ts. Defaults live in parseOptions, so that what was given
 * explicitly can still be told from what was not.
 */
import { z } from 'zod'
import { samplingParts } from '../generate/sampling-options.ts'
import { everyExpectation, parseEvery } from './every.ts'
import {
  below1,
  boolean,
  integer,
  notNegative,
  oneOf,
  path,
  pattern,
  patterns,
  positive,
  upTo1,
} from './option-parts.ts'

const format = oneOf('auto', 'messages', 'sharegpt', 'alpaca', 'prompt-completion', 'text', 'tokens')

const file = z.union(
  [
    path('a path'),
    z.strictObject(
      { path: path('a path'), format: format.optional(), proportion: positive.optional() },
      { error: 'a path' },
    ),
  ],
  { error: 'a path or { path, format, proportion }' },
)

const files = z.union([file, z.array(file).min(1, { error: 'a list of at least one path' })], {
  error: 'a path, a glob, { path, format, proportion } or a list of them',
})

const randomModel = z.strictObject({
  config: z.union([path('the path of a config.json'), z.record(z.string(), z.unknown())], {
    error: 'the path of a config.json, or its content as an object',
  }),
  tokenizer: path('the folder of a tokenizer'),
  init: z.literal('random', { error: "'random'" }),
})

const every = z
  .union([z.number(), z.string()], { error: everyExpectation })
  .refine((value) => parseEvery(value) !== undefined, { error: everyExpectation })

const prompts = z
  .array(
    z.union(
      [path('a text or a list of messages'), z.array(z.unknown()).min(1, { error: 'a list of at least one message' })],
      {
        error: 'a text or a list of messages',
      },
    ),
    { error: 'a list of prompts' },
  )
  .min(1, { error: 'a list of at least one prompt' })

export const samples = z.strictObject({ prompts, every: every.optional(), ...samplingParts })

const byPattern = (value: typeof positive) =>
  z.record(z.string(), value, { error: 'an object of numbers by pattern, such as { "q_proj": 32 }' })

const targets = z.union(
  [path('a text'), z.array(path('the name of a projection')).min(1, { error: 'a list of at least one name' })],
  { error: "'all-linear', a list of names such as ['q_proj', 'v_proj'], or a regular expression" },
)

export const adapter = z.strictObject(
  {
    type: oneOf('lora'),
    rank: integer(1).optional(),
    alpha: positive.optional(),
    dropout: below1.optional(),
    targets: targets.optional(),
    rankPattern: byPattern(integer(1)).optional(),
    alphaPattern: byPattern(positive).optional(),
    rslora: boolean.optional(),
    dora: boolean.optional(),
    loraPlusRatio: positive.optional(),
    init: oneOf('default', 'pissa').optional(),
  },
  { error: "an object such as { type: 'lora', rank: 16 }" },
)

const dropouts = 'a number from 0 to below 1, or two of them for the first and the last layer'

export const schema = z.strictObject(
  {
    preset: oneOf('llama2', 'tulu3', 'lima', 'zephyr', 'smol', 'lora').optional(),
    model: z.union([path('the folder of a checkpoint'), randomModel], {
      error: "the folder of a checkpoint, or { config, tokenizer, init: 'random' }",
    }),
    output: path('the folder the run writes to'),
    data: z.strictObject(
      {
        train: files,
        eval: files.optional(),
        evalFraction: below1.optional(),
        format: format.optional(),
        onBadRow: oneOf('error', 'skip').optional(),
      },
      { error: 'an object such as { train: "train.jsonl" }' },
    ),
    chatTemplate: path("'model', the name of a built-in template or the path of a Jinja file").optional(),
    templateVariables: z.record(z.string(), z.unknown(), { error: 'an object of JSON values by name' }).optional(),
    historyRewrite: oneOf('split', 'error').optional(),
    controlTokensInText: oneOf('error', 'keep', 'escape').optional(),
    trainOn: oneOf('assistant', 'last', 'all').optional(),
    promptLossWeight: upTo1.optional(),
    maxLength: integer(2).optional(),
    onTooLong: oneOf('drop', 'error', 'truncate-turns', 'truncate-left', 'truncate-right').optional(),
    cache: z.union([boolean, path('a folder')], { error: 'true, false or a folder' }).optional(),
    epochs: positive.optional(),
    maxSteps: integer(1).optional(),
    batchSize: integer(1).optional(),
    batchTokens: integer(1).optional(),
    microBatchTokens: integer(1).optional(),
    shuffle: boolean.optional(),
    seed: integer(0).optional(),
    learningRate: positive.optional(),
    schedule: oneOf('cosine', 'linear', 'constant').optional(),
    warmupRatio: upTo1.optional(),
    warmupSteps: integer(0).optional(),
    minLearningRate: notNegative.optional(),
    optimizer: oneOf('adamw', 'adamw-8bit', 'lion', 'adafactor', 'muon', 'sgd').optional(),
    betas: z.tuple([below1, below1], { error: 'two numbers from 0 to below 1, such as [0.9, 0.999]' }).optional(),
    epsilon: positive.optional(),
    momentum: below1.optional(),
    weightDecay: notNegative.optional(),
    maxGradNorm: notNegative.optional(),
    loss: oneOf('cross-entropy', 'dft').optional(),
    labelSmoothing: below1.optional(),
    zLoss: notNegative.optional(),
    neftuneAlpha: notNegative.optional(),
    embeddingDropout: below1.optional(),
    residualDropout: z.union([below1, z.tuple([below1, below1], { error: dropouts })], { error: dropouts }).optional(),
    addTokens: z
      .union([path('a token'), z.array(path('a token')).min(1, { error: 'a list of at least one token' })], {
        error: "a token such as '<|im_start|>' or a list of them",
      })
      .optional(),
    train: patterns.optional(),
    freeze: patterns.optional(),
    parameterGroups: z
      .array(
        z.strictObject(
          { pattern, learningRateScale: notNegative.optional(), weightDecay: notNegative.optional() },
          { error: 'an object such as { pattern: "embed_tokens", learningRateScale: 0.1 }' },
        ),
        { error: 'a list of { pattern, learningRateScale, weightDecay }' },
      )
      .optional(),
    adapter: adapter.optional(),
    quantization: oneOf('nf4').optional(),
    doubleQuantization: boolean.optional(),
    precision: oneOf('float32', 'bfloat16').optional(),
    device: oneOf('auto', 'cuda', 'cpu', 'reference').optional(),
    threads: integer(1).optional(),
    recompute: boolean.optional(),
    evalEvery: every.optional(),
    samples: z
      .union([prompts, samples], { error: 'a list of prompts, or an object such as { prompts: ["Is water wet?"] }' })
      .optional(),
    outputDtype: oneOf('float32', 'float16', 'bfloat16').optional(),
  },
  { error: 'an object with the keys model, output and data' },
)
