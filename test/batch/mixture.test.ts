import assert from 'node:assert/strict'
import fc from 'fast-check'
import type { ExampleSet } from '../../lib/batch/example-set.ts'
import { exampleSet } from '../../lib/batch/example-set.ts'
import { drawnPerEpoch, epochDraw, epochTokens, mixtureParts, mostDrawn, type Part } from '../../lib/batch/mixture.ts'
import { prepare } from '../../lib/batch/prepare.ts'
import { epochOrder } from '../../lib/batch/sampler.ts'
import { buildStep, microBatchLimits, planSteps } from '../../lib/batch/steps.ts'
import { toyTokenizer } from '../chat/helpers.ts'
import { exchange, failure, jsonl, temporaryFolder } from '../data/helpers.ts'

/** One example of 2 + index tokens per conversation, the parts one after another. */
function mixture(...parts: [conversations: number, proportion: number][]): ExampleSet {
  const total = parts.reduce((sum, [conversations]) => sum + conversations, 0)
  const set = exampleSet(
    Array.from({ length: total }, (_, i) => [
      {
        ids: new Int32Array(2 + i).fill(1),
        weights: new Float32Array(2 + i).fill(1),
        source: { file: 'a.jsonl', line: i + 1 },
      },
    ]),
  )
  return {
    ...set,
    parts: parts.map(([conversations, proportion], i): Part => ({ path: `${i}.jsonl`, conversations, proportion })),
  }
}

const draws = (set: ExampleSet, epochs: number, shuffle = true) =>
  Array.from({ length: epochs }, (_, epoch) => [...epochDraw(set, { seed: 42, epoch, shuffle })])

describe('mixtures', () => {
  it('of proportion 1 are the plain order', () => {
    const set = mixture([5, 1], [7, 1])
    for (const shuffle of [true, false])
      assert.deepEqual(epochDraw(set, { seed: 1, epoch: 2, shuffle }), epochOrder(12, { seed: 1, epoch: 2, shuffle }))
  })

  it('draw each entry by its proportion, reproducibly, evenly over epochs and each as often as it may in one', () => {
    const part = fc.tuple(fc.integer({ min: 0, max: 20 }), fc.double({ min: 0.01, max: 3, noNaN: true }))
    fc.assert(
      fc.property(fc.array(part, { minLength: 1, maxLength: 4 }), fc.boolean(), (parts, shuffle) => {
        const set = mixture(...parts)
        const epochs = draws(set, 7, shuffle)
        assert.deepEqual(draws(set, 7, shuffle), epochs)
        let first = 0
        for (const [conversations, proportion] of parts) {
          const expected = conversations === 0 ? 0 : Math.max(1, Math.round(proportion * conversations))
          const uses = new Uint32Array(conversations)
          for (const epoch of epochs) {
            const own = epoch.filter((index) => index >= first && index < first + conversations)
            assert.ok(Math.abs(own.length - expected) <= 1)
            const inEpoch = new Uint32Array(conversations)
            for (const index of own) {
              uses[index - first]!++
              inEpoch[index - first]!++
            }
            assert.ok(Math.max(0, ...inEpoch) <= Math.ceil(proportion))
          }
          assert.ok(conversations === 0 || Math.max(...uses) - Math.min(...uses) <= 1, `${uses}`)
          first += conversations
        }
      }),
      { numRuns: 200 },
    )
  })

  it('keep the order of the file without shuffling, and go on where the last epoch ended', () => {
    assert.deepEqual(draws(mixture([5, 0.4], [2, 2]), 3, false), [
      [0, 1, 5, 5, 6, 6],
      [2, 3, 5, 5, 6, 6],
      [0, 4, 5, 5, 6, 6],
    ])
  })

  it('differ with the seed and draw entries independently', () => {
    const set = mixture([40, 0.5], [40, 0.5])
    const draw = (seed: number) => [...epochDraw(set, { seed, epoch: 0, shuffle: true })].sort((a, b) => a - b)
    assert.notDeepEqual(draw(1), draw(2))
    const [one] = [draw(1)]
    assert.notDeepEqual(
      one!.filter((index) => index < 40),
      one!.filter((index) => index >= 40).map((index) => index - 40),
    )
  })

  it('count what an epoch takes and what a run never draws', () => {
    const set = mixture([10, 0.25], [4, 1], [2, 1.5])
    assert.deepEqual(
      mixtureParts(set, 2)!.map(({ drawnPerEpoch, neverDrawn }) => [drawnPerEpoch, neverDrawn]),
      [
        [3, 4],
        [4, 0],
        [3, 0],
      ],
    )
    assert.equal(mixtureParts({ ...set, parts: [] }, 1)!.length, 0)
    assert.equal(drawnPerEpoch({ path: '', conversations: 1000, proportion: 0.0001 }), 1)
    const { tokens } = epochTokens(set, { seed: 3, shuffle: true })
    const drawn = [...epochDraw(set, { seed: 3, epoch: 0, shuffle: true })]
    assert.equal(
      tokens,
      drawn.reduce((sum, index) => sum + 2 + index, 0),
    )
    const { tokens: all } = mixture([3, 1])
    assert.equal(epochTokens(exampleSet([mixture([3, 1]).examples]), { seed: 3, shuffle: true }).tokens, all)
  })

  it('never make a micro-batch larger than the plan says, repeats in one step included', () => {
    const set = mixture([3, 3], [6, 0.5])
    const size = { conversations: 4 }
    const limits = microBatchLimits(mostDrawn(set), 1000, size)
    for (const order of draws(set, 20)) {
      for (const step of planSteps(set, Uint32Array.from(order), size)) {
        for (const { tokens, cuSeqlens } of buildStep(set, step, 1000).microBatches) {
          assert.ok(tokens.length <= limits.tokens)
          assert.ok(cuSeqlens.length - 1 <= limits.sequences)
        }
      }
    }
    // Three times the longest of the first part and one more would not fit the limits of the set by itself.
    assert.ok(limits.tokens >= 4 * 4)
  })
})

describe('mixtures of files', () => {
  const { path, write } = temporaryFolder()

  it('know the conversations of each entry after dropping and setting aside', async () => {
    const tokenizer = await toyTokenizer(path('toy'), { special: ['</s>', '<|im_start|>', '<|im_end|>'], eos: '</s>' })
    const many = (name: string, count: number) =>
      jsonl(...Array.from({ length: count }, (_, i) => exchange(`${name} ${i}`, 'x')))
    const one = await write('one.jsonl', many('one', 10))
    await write('two-a.jsonl', many('a', 3))
    await write('two-b.jsonl', `${many('b', 2)}{\n`)
    const entry = (file: string, proportion: number) => ({ path: file, format: 'auto' as const, proportion })
    const options = {
      data: {
        train: [entry(one, 0.5), entry(path('two-*.jsonl'), 2)],
        eval: [],
        evalFraction: 0,
        onBadRow: 'skip' as const,
      },
      chatTemplate: 'chatml',
      historyRewrite: 'split' as const,
      controlTokensInText: 'error' as const,
      trainOn: 'assistant' as const,
      promptLossWeight: 0,
      maxLength: 100,
      onTooLong: 'drop' as const,
      seed: 42,
    }
    const { train } = await prepare(options, tokenizer)
    assert.deepEqual(train.parts, [
      { path: one, conversations: 10, proportion: 0.5 },
      { path: path('two-*.jsonl'), conversations: 5, proportion: 2 },
    ])
    const split = await prepare({ ...options, data: { ...options.data, evalFraction: 0.2 } }, tokenizer)
    assert.equal(
      split.train.parts!.reduce((sum, { conversations }) => sum + conversations, 0),
      12,
    )
    const twice = { ...options.data, train: [entry(one, 0.5), entry(one, 1)] }
    await assert.rejects(prepare({ ...options, data: twice }, tokenizer), failure('ERR_INVALID_OPTION', 'two entries'))
  })
})
