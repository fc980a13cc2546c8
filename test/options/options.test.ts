import assert from 'node:assert/strict'
import { join, resolve } from 'node:path'
import type { z } from 'zod'
import { defaultCacheFolder } from '../../lib/batch/cache/cache.ts'
import { TunesmithError } from '../../lib/errors.ts'
import type { schema } from '../../lib/trainer/option-schema.ts'
import { parseOptions, type TrainerOptions } from '../../lib/trainer/options.ts'

// What a user may write and what the schema accepts are declared apart, for the docstrings; they must be the same.
type Accepted = z.input<typeof schema>
type Same<A, B> = [keyof A, keyof B] extends [keyof B, keyof A] ? true : false
const typesAgree: [
  TrainerOptions extends Accepted ? true : false,
  Same<TrainerOptions, Accepted>,
  Same<TrainerOptions['data'], Accepted['data']>,
] = [true, true, true]

const base = resolve('/some/where')
const least = { model: 'base', output: 'out', data: { train: 'train.jsonl' } }

function refusal(extra: object): TunesmithError {
  try {
    parseOptions({ ...least, ...extra }, base)
  } catch (error) {
    assert.ok(error instanceof TunesmithError, String(error))
    return error
  }
  assert.fail('accepted')
}

describe('the options', () => {
  it('have the documented defaults', () => {
    assert.ok(typesAgree.every(Boolean))
    assert.deepEqual(parseOptions(least, base), {
      model: { folder: join(base, 'base') },
      output: join(base, 'out'),
      data: {
        train: [{ path: join(base, 'train.jsonl'), format: 'auto', proportion: 1 }],
        eval: [],
        evalFraction: 0,
        onBadRow: 'error',
      },
      chatTemplate: 'model',
      historyRewrite: 'split',
      controlTokensInText: 'error',
      templateVariables: {},
      trainOn: 'assistant',
      promptLossWeight: 0,
      onTooLong: 'drop',
      cache: defaultCacheFolder(),
      epochs: 3,
      batch: { conversations: 16 },
      microBatchTokens: 8192,
      shuffle: true,
      seed: 42,
      learningRate: 2e-5,
      schedule: 'cosine',
      warmup: { ratio: 0.03 },
      minLearningRate: 0,
      optimizer: 'adamw',
      betas: [0.9, 0.999],
      epsilon: 1e-8,
      momentum: 0,
      weightDecay: 0,
      maxGradNorm: 1,
      loss: 'cross-entropy',
      labelSmoothing: 0,
      zLoss: 0,
      neftuneAlpha: 0,
      embeddingDropout: 0,
      residualDropout: [0, 0],
      addTokens: [],
      train: [],
      freeze: [],
      parameterGroups: [],
      doubleQuantization: true,
      precision: 'auto',
      device: 'auto',
      threads: 0,
      recompute: false,
      evalEvery: { epochs: 1 },
    })
  })

  it('keep what was given', () => {
    const given = {
      trainOn: 'last',
      promptLossWeight: 0.1,
      maxLength: 512,
      onTooLong: 'error',
      microBatchTokens: 1024,
      shuffle: false,
      seed: 0,
      learningRate: 1e-3,
      schedule: 'linear',
      minLearningRate: 1e-5,
      betas: [0, 0.95],
      epsilon: 1e-6,
      weightDecay: 0.1,
      precision: 'float32',
      device: 'reference',
      threads: 2,
      recompute: true,
      outputDtype: 'float16',
    }
    const parsed = parseOptions({ ...least, ...given }, base)
    for (const [key, value] of Object.entries(given)) assert.deepEqual(parsed[key as keyof typeof parsed], value, key)
  })

  it('resolve every path against the base folder, and leave absolute ones', () => {
    const options = parseOptions(
      {
        model: { config: 'c/config.json', tokenizer: '/abs/tok', init: 'random' },
        output: '/abs/out',
        data: {
          train: ['a.jsonl', { path: 'b/*.jsonl', format: 'text', proportion: 0.5 }],
          eval: 'e.jsonl',
          format: 'messages',
        },
        chatTemplate: './t.jinja',
        cache: 'kept',
      },
      base,
    )
    assert.deepEqual(options.model, { config: join(base, 'c/config.json'), tokenizer: '/abs/tok', init: 'random' })
    assert.equal(options.output, '/abs/out')
    assert.equal(options.cache, join(base, 'kept'))
    assert.deepEqual(options.data.train, [
      { path: join(base, 'a.jsonl'), format: 'messages', proportion: 1 },
      { path: join(base, 'b/*.jsonl'), format: 'text', proportion: 0.5 },
    ])
    assert.deepEqual(options.data.eval, [{ path: join(base, 'e.jsonl'), format: 'messages', proportion: 1 }])
    assert.equal(options.chatTemplate, join(base, 't.jinja'))
  })

  it('keep names of the hub, unless a local path has that name or it ends like a data file', () => {
    const of = (model: string, train: string) => {
      const options = parseOptions({ model, output: 'out', data: { train } }, join(import.meta.dirname, '..'))
      return [(options.model as { folder: string }).folder, options.data.train[0]!.path]
    }
    assert.deepEqual(of('org/name@v1', 'org/name'), ['org/name@v1', 'org/name'])
    assert.deepEqual(of('hf://org/name', 'hf://datasets/org/name/a.jsonl'), [
      'hf://org/name',
      'hf://datasets/org/name/a.jsonl',
    ])
    const here = join(import.meta.dirname, '..')
    assert.deepEqual(of('test/golden', 'data/train.jsonl'), ['test/golden', join(here, 'data/train.jsonl')])
    assert.deepEqual(of('golden/stories260K', 'data/*.jsonl'), [
      join(here, 'golden/stories260K'),
      join(here, 'data/*.jsonl'),
    ])
    assert.deepEqual(of('./org/name', 'golden/data'), [join(here, 'org/name'), join(here, 'golden/data')])
  })

  it('take a whole model configuration as an object', () => {
    const config = { model_type: 'llama', hidden_size: 8 }
    const { model } = parseOptions({ ...least, model: { config, tokenizer: '/t', init: 'random' } }, base)
    assert.deepEqual(model, { config, tokenizer: '/t', init: 'random' })
  })

  it('do not change their input', () => {
    const input = Object.freeze({ ...least, data: Object.freeze({ train: 'x.jsonl' }) })
    parseOptions(input, base)
    assert.deepEqual(input, { ...least, data: { train: 'x.jsonl' } })
  })

  it('let maxSteps alone set the length, and end earlier beside epochs', () => {
    assert.equal(parseOptions({ ...least, maxSteps: 5 }, base).epochs, Number.POSITIVE_INFINITY)
    assert.equal(parseOptions({ ...least, maxSteps: 5, epochs: 2 }, base).epochs, 2)
    assert.equal(parseOptions({ ...least, maxSteps: 5 }, base).maxSteps, 5)
  })

  it('give one meaning to steps, tokens and warmup', () => {
    assert.deepEqual(parseOptions({ ...least, batchTokens: 4096 }, base).batch, { tokens: 4096 })
    assert.deepEqual(parseOptions({ ...least, batchSize: 4 }, base).batch, { conversations: 4 })
    assert.deepEqual(parseOptions({ ...least, warmupSteps: 0 }, base).warmup, { steps: 0 })
    assert.equal(parseOptions({ ...least, maxGradNorm: 0 }, base).maxGradNorm, Number.POSITIVE_INFINITY)
  })

  it('read how often to evaluate', () => {
    const evaluate = (evalEvery: unknown) =>
      parseOptions({ ...least, data: { train: 'x', evalFraction: 0.1 }, evalEvery }, base).evalEvery
    assert.deepEqual(evaluate(50), { steps: 50 })
    assert.deepEqual(evaluate('50 steps'), { steps: 50 })
    assert.deepEqual(evaluate('90s'), { seconds: 90 })
    assert.deepEqual(evaluate('10m'), { seconds: 600 })
    assert.deepEqual(evaluate('1.5h'), { seconds: 5400 })
    assert.deepEqual(evaluate('1epoch'), { epochs: 1 })
    assert.deepEqual(evaluate('0.5epoch'), { epochs: 0.5 })
    assert.deepEqual(evaluate('2 epochs'), { epochs: 2 })
    for (const wrong of [0, -1, 1.5, Number.NaN, '0m', '10', 'm', '1 parsec', '0.5steps', '-1epoch', '1epoch2'])
      assert.throws(
        () => evaluate(wrong),
        { code: 'ERR_INVALID_OPTION', message: /^option evalEvery must be/ },
        `${wrong}`,
      )
  })
})

describe('an unknown option', () => {
  const cases: [object, RegExp][] = [
    [{ learnigRate: 1 }, /^option learnigRate is unknown; did you mean learningRate\?$/],
    [{ learning_rate: 1 }, /learning_rate is unknown; did you mean learningRate\?/],
    [{ lr: 1 }, /lr is unknown; did you mean learningRate\?/],
    [{ num_train_epochs: 1 }, /did you mean epochs\?/],
    [{ per_device_train_batch_size: 1 }, /did you mean batchSize/],
    [{ gradient_accumulation_steps: 1 }, /did you mean batchSize .* and microBatchTokens/],
    [{ max_seq_length: 1 }, /did you mean maxLength\?/],
    [{ output_dir: 1 }, /did you mean output\?/],
    [{ Epochs: 1 }, /did you mean epochs\?/],
    [{ warmup_ratio: 1 }, /did you mean warmupRatio\?/],
    [{ tokenizer: 'x' }, /did you mean model\.tokenizer\?/],
    [{ load_in_4bit: true }, /did you mean quantization: 'nf4'\?/],
    [
      { data: { train: 'x', evalFration: 0.1 } },
      /^option data\.evalFration is unknown; did you mean data\.evalFraction\?$/,
    ],
    [{ data: { train: 'x', seed: 1 } }, /^option data\.seed is unknown; did you mean seed\?$/],
    [
      { data: { train: ['x', { path: 'y', fromat: 'text' }] } },
      /data\.train\[1\]\.fromat is unknown; did you mean data\.train\.format\?/,
    ],
    [
      { model: { config: 'c', tokeniser: 't', init: 'random' } },
      /model\.tokeniser is unknown; did you mean model\.tokenizer\?/,
    ],
    [
      { samples: { prompts: ['a'], max_new_tokens: 3 } },
      /samples\.max_new_tokens is unknown; did you mean samples\.maxNewTokens\?/,
    ],
    [
      { data: { train: [{ path: 'x', weight: 0.2 }] } },
      /^option data\.train\[0\]\.weight is unknown; did you mean proportion /,
    ],
    [
      { adapter: { type: 'lora', loraAlpha: 3 } },
      /^option adapter\.loraAlpha is unknown; did you mean adapter\.alpha\?$/,
    ],
    [{ adapter: { type: 'lora', r: 3 } }, /did you mean adapter\.rank\?/],
    [{ lora_dropout: 0.1 }, /did you mean adapter\.dropout\?/],
    [{ target_modules: ['q_proj'] }, /did you mean adapter\.targets\?/],
    [{ packing: true }, /^option packing is unknown; remove it: conversations are always laid end to end/],
    [{ xyzzyplugh: 1 }, /^option xyzzyplugh is unknown$/],
  ]
  for (const [extra, message] of cases)
    it(`${JSON.stringify(extra)} is refused with the nearest name`, () => {
      const error = refusal(extra)
      assert.equal(error.code, 'ERR_UNKNOWN_OPTION')
      assert.match(error.message, message)
    })

  for (const key of ['attentionDropout', 'checkpointEvery', 'keepLast', 'keepBest', 'earlyStopping', 'resume'])
    it(`${key} of a later version is refused, not ignored`, () => {
      const error = refusal({ [key]: true })
      assert.equal(error.code, 'ERR_UNKNOWN_OPTION')
      assert.match(error.message, new RegExp(`^option ${key} is not available in this version: `))
    })
})

describe('an entry of data.train', () => {
  it('has its wrong field named, in a list of any length', () => {
    for (const list of [[{ path: 'x', proportion: '25%' }], ['y', { path: 'x', proportion: '25%' }]]) {
      const error = refusal({ data: { train: list } })
      const at = `data\\.train\\[${list.length - 1}\\]\\.proportion`
      assert.match(error.message, new RegExp(`^option ${at} must be a number above 0; found the text "25%"$`))
    }
    assert.match(refusal({ data: { train: [7] } }).message, /^option data\.train\[0\] must be a path or \{.*found 7$/)
    assert.match(refusal({ data: { train: 7 } }).message, /^option data\.train must be a path, a glob.*found 7$/)
  })
})

describe('adapter', () => {
  it('is kept as given, for what it is may depend on the model', () => {
    const adapter = { type: 'lora', rank: 8, rankPattern: { q_proj: 4 }, targets: ['q_proj'] } as const
    assert.deepEqual(parseOptions({ ...least, adapter }, base).adapter, adapter)
    assert.equal(parseOptions(least, base).adapter, undefined)
  })

  const cases: [object, RegExp][] = [
    [{ adapter: true }, /adapter must be an object such as \{ type: 'lora', rank: 16 \}; found true/],
    [{ adapter: { rank: 8 } }, /adapter\.type must be 'lora'; found nothing/],
    [{ adapter: { type: 'dora' } }, /adapter\.type must be 'lora'; found the text "dora"/],
    [{ adapter: { type: 'lora', rank: 0 } }, /adapter\.rank must be an integer from 1 up; found 0/],
    [{ adapter: { type: 'lora', dropout: 1 } }, /adapter\.dropout must be a number from 0 to below 1; found 1/],
    [{ adapter: { type: 'lora', targets: [] } }, /adapter\.targets must be a list of at least one name/],
    [{ adapter: { type: 'lora', rankPattern: { q_proj: 1.5 } } }, /adapter\.rankPattern\.q_proj must be an integer/],
    [{ adapter: { type: 'lora', init: 'pissa', dora: true } }, /adapter\.init 'pissa' excludes adapter\.dora/],
    [{ adapter: { type: 'lora' }, train: 'q_proj' }, /train excludes adapter, beside which nothing trains/],
    [{ adapter: { type: 'lora' }, outputDtype: 'float32' }, /outputDtype has no effect with adapter/],
  ]
  for (const [extra, message] of cases)
    it(`${JSON.stringify(extra)} is refused`, () => {
      const error = refusal(extra)
      assert.equal(error.code, 'ERR_INVALID_OPTION')
      assert.match(error.message, message)
    })
})

describe('samples', () => {
  it('are prompts, or prompts with how', () => {
    const of = (samples: unknown, more = {}) => parseOptions({ ...least, ...more, samples }, base).samples
    assert.deepEqual(of(['a'], { seed: 7 }), {
      prompts: ['a'],
      every: { epochs: 1 },
      maxNewTokens: 128,
      stop: [],
      seed: 7,
    })
    assert.deepEqual(of({ prompts: ['a'], every: 5, temperature: 1, topK: 3, seed: 1, stop: 'x', maxNewTokens: 2 }), {
      prompts: ['a'],
      every: { steps: 5 },
      maxNewTokens: 2,
      stop: ['x'],
      seed: 1,
      temperature: 1,
      topK: 3,
    })
    assert.equal(of(undefined), undefined)
  })
})

describe('a wrong value', () => {
  const cases: [object, RegExp][] = [
    [{ samples: [] }, /^option samples must be a list of at least one prompt; found an empty list/],
    [{ samples: true }, /^option samples must be a list of prompts, or an object such as/],
    [
      { samples: { prompts: [''] } },
      /^option samples\.prompts\[0\] must be a text or a list of messages; found the text ""/,
    ],
    [{ samples: { prompts: ['a'], every: 0 } }, /^option samples\.every must be a number of steps/],
    [{ learningRate: Number.NaN }, /^option learningRate must be a number above 0; found NaN$/],
    [{ learningRate: Number.POSITIVE_INFINITY }, /^option learningRate must be .*; found Infinity$/],
    [{ learningRate: 0 }, /must be a number above 0; found 0/],
    [{ learningRate: '2e-5' }, /must be a number above 0; found the text "2e-5"/],
    [{ epochs: 0 }, /^option epochs /],
    [{ epochs: null }, /found null/],
    [{ maxSteps: 1.5 }, /^option maxSteps must be an integer from 1 up; found 1\.5$/],
    [{ batchSize: 0 }, /^option batchSize /],
    [{ microBatchTokens: -1 }, /^option microBatchTokens /],
    [{ seed: 2 ** 60 }, /^option seed /],
    [{ warmupRatio: 1.1 }, /^option warmupRatio must be a number from 0 to 1; found 1\.1$/],
    [{ promptLossWeight: -0.1 }, /^option promptLossWeight /],
    [{ betas: [0.9] }, /^option betas must be two numbers .* found a list of 1$/],
    [{ betas: [0.9, 1] }, /^option betas\[1\] must be a number from 0 to below 1; found 1$/],
    [{ epsilon: 0 }, /^option epsilon /],
    [{ weightDecay: -1 }, /^option weightDecay /],
    [{ maxGradNorm: Number.POSITIVE_INFINITY }, /^option maxGradNorm /],
    [{ shuffle: 'yes' }, /^option shuffle must be true or false; found the text "yes"$/],
    [{ schedule: 'cos' }, /^option schedule must be 'cosine', 'linear' or 'constant'; found the text "cos"$/],
    [{ precision: 'fp16' }, /^option precision must be 'float32' or 'bfloat16'/],
    [{ device: 'gpu' }, /^option device must be 'auto', 'cuda', 'cpu' or 'reference'/],
    [{ threads: 0 }, /^option threads /],
    [{ optimizer: 'adam' }, /^option optimizer /],
    [{ maxLength: 1 }, /^option maxLength must be an integer from 2 up; found 1$/],
    [{ controlTokensInText: 'drop' }, /^option controlTokensInText must be 'error', 'keep' or 'escape'/],
    [{ onTooLong: 'truncate' }, /^option onTooLong must be 'drop', 'error', 'truncate-turns', 'truncate-left' or/],
    [{ templateVariables: [1] }, /^option templateVariables must be an object of JSON values by name/],
    [{ outputDtype: 'int8' }, /^option outputDtype /],
    [{ model: '' }, /^option model must be the folder of a checkpoint/],
    [{ model: 3 }, /^option model must be the folder .*; found 3$/],
    [
      { model: { config: 'c', tokenizer: 't', init: 'zeros' } },
      /^option model\.init must be 'random'; found the text "zeros"$/,
    ],
    [{ output: undefined }, /^option output must be the folder the run writes to; found nothing$/],
    [{ data: 'train.jsonl' }, /^option data must be an object such as/],
    [{ data: {} }, /^option data\.train must be a path, a glob/],
    [{ data: { train: [] } }, /^option data\.train must be a list of at least one path; found an empty list$/],
    [
      { data: { train: 'x', evalFraction: 1 } },
      /^option data\.evalFraction must be a number from 0 to below 1; found 1$/,
    ],
    [{ data: { train: 'x', format: 'csv' } }, /^option data\.format /],
    [{ data: { train: { path: 'x', proportion: 0 } } }, /^option data\.train\.proportion must be a number above 0/],
    [
      { data: { train: 'x', eval: [{ path: 'e', proportion: 0.5 }] } },
      /^option data\.eval\[0\]\.proportion has no effect/,
    ],
    [{ data: { train: 'x', eval: { path: 'e', proportion: 1 } } }, /^option data\.eval\.proportion has no effect/],
    [{ train: 'data/x.jsonl' }, /^option train selects tensors by pattern; the training data is data\.train$/],
    [{ residualDropout: [0.1] }, /^option residualDropout must be a number from 0 to below 1, or two of them/],
    [{ labelSmoothing: 1 }, /^option labelSmoothing must be a number from 0 to below 1/],
    [{ preset: 'alpaca' }, /^option preset must be 'llama2', 'tulu3', 'lima', 'zephyr', 'smol' or 'lora'/],
    [{ freeze: '/(/' }, /^option freeze must be a pattern over tensor names/],
    [{ train: [] }, /^option train must be a list of at least one pattern/],
    [{ parameterGroups: [{ learningRateScale: 1 }] }, /^option parameterGroups\[0\]\.pattern must be a pattern/],
    [{ data: { train: 'x', onBadRow: 'ignore' } }, /^option data\.onBadRow must be 'error' or 'skip'/],
    [{ chatTemplate: 'chatm1' }, /^option chatTemplate knows no 'chatm1'; did you mean 'chatml'\?/],
  ]
  for (const [extra, message] of cases)
    it(`${Object.keys(extra)} ${JSON.stringify(Object.values(extra)[0]) ?? 'nothing'} is refused with its path`, () => {
      const error = refusal(extra)
      assert.equal(error.code, 'ERR_INVALID_OPTION')
      assert.match(error.message, message)
    })

  it('that is no object at all is refused', () => {
    for (const input of [undefined, null, 5, 'config.json', []])
      assert.throws(() => parseOptions(input, base), {
        code: 'ERR_INVALID_OPTION',
        message: /^options must be an object/,
      })
  })
})

describe('options together', () => {
  const both = { train: 'x', eval: 'y', evalFraction: 0.1 }
  const cases: [object, RegExp][] = [
    [{ batchSize: 1, batchTokens: 1 }, /^option batchTokens excludes batchSize/],
    [{ warmupRatio: 0, warmupSteps: 0 }, /^option warmupSteps excludes warmupRatio/],
    [{ data: both }, /^option data\.evalFraction excludes data\.eval/],
    [{ optimizer: 'sgd', betas: [0.9, 0.999] }, /^option betas has no effect with optimizer 'sgd'/],
    [{ optimizer: 'sgd', epsilon: 1e-8 }, /^option epsilon has no effect with optimizer 'sgd'/],
    [{ optimizer: 'lion', epsilon: 1e-8 }, /^option epsilon has no effect with optimizer 'lion'/],
    [{ momentum: 0.9 }, /^option momentum has no effect with optimizer 'adamw'/],
    [{ optimizer: 'adafactor', betas: [0.9, 0.999] }, /^option betas has no effect with optimizer 'adafactor'/],
    [{ loss: 'dft', zLoss: 1e-4 }, /^option zLoss excludes loss 'dft'/],
    [{ schedule: 'constant', minLearningRate: 0 }, /^option minLearningRate has no effect with schedule 'constant'/],
    [{ trainOn: 'all', promptLossWeight: 0.1 }, /^option promptLossWeight has no effect with trainOn 'all'/],
    [{ samples: { prompts: ['a'], topK: 5 } }, /^option samples\.topK has no effect with temperature 0/],
    [{ evalEvery: 10 }, /^option evalEvery has no effect without evaluation data/],
    [{ minLearningRate: 1e-3 }, /^option minLearningRate is 0\.001, above learningRate \(0\.00002\)$/],
  ]
  for (const [extra, message] of cases)
    it(`${JSON.stringify(extra)} are refused`, () => {
      const error = refusal(extra)
      assert.equal(error.code, 'ERR_INVALID_OPTION')
      assert.match(error.message, message)
    })

  it('are not in each other’s way when one is undefined', () => {
    assert.deepEqual(parseOptions({ ...least, batchSize: undefined, batchTokens: 8 }, base).batch, { tokens: 8 })
  })

  it('have every problem listed in one error', () => {
    const error = refusal({ lr: 1, epochs: -1, data: { train: 'x', fromat: 'text' }, batchSize: 1, batchTokens: 1 })
    assert.equal(error.code, 'ERR_UNKNOWN_OPTION')
    assert.match(error.message, /^4 problems with the options:\n/)
    for (const path of ['lr', 'epochs', 'data.fromat', 'batchTokens'])
      assert.match(error.message, new RegExp(`\n  - option ${path} `))
  })
})
