import assert from 'node:assert/strict'
import { bytes, duration } from '../../lib/cli/format.ts'
import { planTable } from '../../lib/cli/plan.ts'
import { showProgress } from '../../lib/cli/progress.ts'
import { TimeLeft } from '../../lib/cli/time-left.ts'
import { type FitResult, type SampleEvent, TrainerEmitter, type TrainingPlan } from '../../lib/trainer/events.ts'

const plan: TrainingPlan = {
  parameters: 260032,
  trainable: 260032,
  conversations: 36,
  evalConversations: 4,
  tokens: 4341,
  supervisedTokens: 2440,
  evalTokens: 455,
  longest: { tokens: 264, source: 'train.jsonl:34' },
  steps: 2,
  stepsPerEpoch: 18,
  epochs: 1 / 9,
  warmupSteps: 1,
  batchSize: 2,
  microBatchTokens: 8192,
  microBatches: 2,
  packing: { fill: 0.265, padded: 1.5 },
  memory: {
    parameters: 2 ** 20,
    quantized: 0,
    prepared: 0,
    gradients: 2 ** 20,
    optimizer: 2 ** 21,
    activations: 3 * 2 ** 30,
    logits: 2 ** 10,
    scratch: 0,
    cache: 0,
    total: 3 * 2 ** 30 + 2 ** 22 + 2 ** 10,
  },
  estimatedSeconds: 65,
  device: 'cpu',
  precision: 'float32',
  threads: 2,
  template: 'model',
  formats: [{ file: '/data/train.jsonl', format: 'text', evidence: 'the first row has "text": plain text' }],
  data: {
    rows: 41,
    used: 36,
    evaluated: 4,
    dropped: [{ reason: 'longer than maxLength (264 tokens)', count: 1, examples: ['train.jsonl:7'] }],
    droppedTokens: 0,
    droppedSupervisedTokens: 0,
    truncated: 0,
    truncatedTokens: 0,
    truncatedSupervisedTokens: 0,
    unstopped: 0,
    split: 0,
    straddling: 0,
  },
}

const step = {
  step: 1,
  steps: 2,
  epoch: 1 / 18,
  loss: 3.59666,
  learningRate: 2e-5,
  gradNorm: 9.6416,
  supervisedTokens: 123,
  totalTokens: 216,
  microBatches: 1,
  tokensPerSecond: 5432.1,
}
const evaluation = { step: 0, epoch: 0, loss: 4.5, perplexity: 90.02, tokenAccuracy: 0.231, supervisedTokens: 130 }
const sample: SampleEvent = {
  step: 0,
  epoch: 0,
  index: 0,
  prompt: [{ role: 'user', content: 'Is water wet?' }],
  text: 'Yes.\nIt is.',
  finishReason: 'stop',
  tokens: 7,
}
const last = { ...step, step: 2, epoch: 1 / 9, loss: 2.5 }

const result: FitResult = {
  output: '/run',
  metrics: '/run/metrics.jsonl',
  steps: 2,
  epochs: 1 / 9,
  history: { steps: [step, last], samples: [], evals: [evaluation, { ...evaluation, step: 2, loss: 4.25 }] },
  loss: 2.5,
  totalTokens: 432,
  supervisedTokens: 246,
  packing: { fill: 0.0264, padded: 1.5 },
  seconds: 61,
  data: plan.data,
}

/** The events of a short run, as showProgress prints them. */
function shown({ json = false, isTTY = false }) {
  const trainer = new TrainerEmitter()
  const all: { stream: 'stdout' | 'stderr'; text: string }[] = []
  const stream = (name: 'stdout' | 'stderr') => ({
    isTTY,
    columns: 120,
    write: (text: string) => {
      all.push({ stream: name, text })
      return true
    },
  })
  const close = showProgress(trainer, { stdout: stream('stdout'), stderr: stream('stderr') }, json)
  trainer.emit('prepare', { stage: 'data', done: 10 })
  trainer.emit('prepare', { stage: 'data', done: 41, total: 41 })
  trainer.emit('plan', plan)
  const { steps, epochs, device, precision, threads, parameters } = plan
  trainer.emit('start', { steps, epochs, device, precision, threads, parameters, output: '/run' })
  trainer.emit('eval', evaluation)
  trainer.emit('sample', sample)
  trainer.emit('step', step)
  trainer.emit('warning', { code: 'WARN_TEST', message: 'something is odd' })
  trainer.emit('step', last)
  trainer.emit('checkpoint', { path: '/run', step: 2 })
  trainer.emit('end', result)
  close()
  close()
  const text = (name: string) =>
    all
      .filter((part) => part.stream === name)
      .map((part) => part.text)
      .join('')
  return { stdout: text('stdout'), stderr: text('stderr'), all }
}

describe('progress', () => {
  it('is a line per step in a pipe, with warnings on stderr', () => {
    const { stdout, stderr } = shown({})
    assert.equal(stderr, 'warning: something is odd [WARN_TEST]\n')
    assert.deepEqual(stdout.replace(/\d+s left/g, '0s left').split('\n'), [
      '36 conversations of 4,341 tokens, 56.2 % with loss; 2 steps in 0.11 epochs; cpu float32, 2 threads',
      'eval at step 0  loss 4.5000  perplexity 90.02  accuracy 23.1 %',
      'sample at step 0  "Is water wet?" → "Yes.\\nIt is."',
      'step 1/2  epoch 0.06  loss 3.5967  lr 2.00e-5  grad norm 9.642  5,432 tok/s  0s left',
      'step 2/2  epoch 0.11  loss 2.5000  lr 2.00e-5  grad norm 9.642  5,432 tok/s  0s left',
      '2 steps in 1m 01s, evaluation loss 4.5000 → 4.2500; checkpoint in /run',
      '',
    ])
  })

  it('is one event per line with --json, each complete', () => {
    const { stdout, stderr } = shown({ json: true, isTTY: true })
    const events = stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line))
    assert.deepEqual(
      events.map(({ event }) => event),
      ['prepare', 'prepare', 'plan', 'start', 'eval', 'sample', 'step', 'warning', 'step', 'checkpoint', 'end'],
    )
    assert.deepEqual(events[2], { event: 'plan', ...plan })
    assert.deepEqual(events[5], { event: 'sample', ...sample })
    assert.deepEqual(events[6], { event: 'step', ...step })
    const { history: _, ...rest } = result
    assert.deepEqual(events[10], { event: 'end', ...rest })
    assert.equal(stderr, 'warning: something is odd [WARN_TEST]\n')
  })

  it('is a bar on a terminal, which lines that stay do not break', () => {
    const { stdout, all } = shown({ isTTY: true })
    assert.match(stdout, /step 1\/2 █+░+ 50 % {2}loss 3\.5967 {2}5,432 tok\/s {2}\d+s left/)
    assert.match(stdout, /loading|reading data/)
    // Before every line that stays, and at the end, the last thing on the terminal's line is its erasure.
    const lines = all.filter(({ text }) => text.endsWith('\n'))
    assert.equal(lines.length, 5)
    for (const line of lines) {
      const before = all
        .slice(0, all.indexOf(line))
        .map(({ text }) => text)
        .join('')
      assert.ok(before.endsWith('\x1b[2K') || before.endsWith('\n'), JSON.stringify(line.text))
    }
    // The cursor and line wrapping, which the bar turns off, are on again as often.
    const times = (code: string) => stdout.split(code).length - 1
    assert.equal(times('\x1b[?25l'), times('\x1b[?25h'))
    assert.equal(times('\x1b[?7l'), times('\x1b[?7h'))
  })
})

describe('the time left', () => {
  it('is that of the mean step so far', () => {
    let now = 0
    const time = new TimeLeft(() => now)
    time.start(10)
    now = 5_000
    time.start()
    now = 25_000
    assert.equal(time.after(2), '1m 20s left')
    assert.equal(time.after(10), '0s left')
  })
})

describe('the plan as a table', () => {
  it('tells of samples where there are any', () => {
    const table = planTable({ ...plan, samples: { prompts: 3, cacheTokens: 640 } })
    assert.match(table, /^ {2}samples +3 prompts, in a cache of 640 tokens$/m)
  })

  it('has every number once, in people’s units', () => {
    assert.equal(
      planTable(plan),
      `Model
  parameters       260,032
  trained          260,032 (100.0 %)
  chat template    model

Data
  format           train.jsonl: the first row has "text": plain text
  rows read        41
  conversations    36
  tokens           4,341
  with loss        2,440 (56.2 %)
  longest          264 tokens, train.jsonl:34
  for evaluation   4 conversations, 455 tokens
  dropped          1: longer than maxLength (264 tokens) (train.jsonl:7)

Run
  steps            2 (18 per epoch, 0.11 epochs)
  per step         2 conversations
  at once          up to 8,192 tokens (2,171 on average, each of them a step); padding would make 1.50 times as many
  warmup           1 step
  device           cpu, float32, 2 threads
  estimated time   1m 05s

Memory
  parameters       1.00 MiB
  gradients        1.00 MiB
  optimizer state  2.00 MiB
  activations      3.00 GiB
  logits           1.00 KiB
  total            3.00 GiB`,
    )
  })

  it('counts the layouts of many files, and says what a mixture draws', () => {
    const formats = Array.from({ length: 7 }, (_, i) => ({
      file: `/data/${i}.jsonl`,
      format: i < 5 ? 'sharegpt' : 'text',
      evidence: 'not shown',
    }))
    const part = { path: '/data/*.jsonl', proportion: 0.25, conversations: 4000, drawnPerEpoch: 1000, neverDrawn: 0 }
    const table = planTable({ ...plan, formats, mixture: [part] })
    assert.match(table, /\n {2}format {11}sharegpt \(5 files\)\n {2}format {11}text \(2 files\)\n/)
    assert.match(table, /\n {2}per epoch {8}1,000 from the 4,000 of \*\.jsonl \(proportion 0\.25\)\n/)
  })

  it('formats bytes and times of every size', () => {
    assert.deepEqual([0, 999, 1000, 1536, 20 * 2 ** 20, 300 * 2 ** 30].map(bytes), [
      '0 B',
      '999 B',
      '0.98 KiB',
      '1.50 KiB',
      '20.0 MiB',
      '300 GiB',
    ])
    assert.deepEqual([0, 0.42, 0.97, 59.4, 59.6, 3599, 3600, 90061].map(duration), [
      '0s',
      '0.4s',
      '1s',
      '59s',
      '1m 00s',
      '59m 59s',
      '1h 00m',
      '1d 01h',
    ])
  })
})
