import assert from 'node:assert/strict'
import type { ParameterSource } from '../../lib/checkpoint/families/family.ts'
import { llama } from '../../lib/checkpoint/families/llama.ts'
import { openCheckpoint } from '../../lib/checkpoint/open.ts'
import { streamTensor, withFile } from '../../lib/checkpoint/safetensors.ts'
import { Trainer } from '../../lib/index.ts'
import { matching } from '../../lib/trainer/tensor-pattern.ts'
import { selectTrainable } from '../../lib/trainer/trainable.ts'
import { smallSpec } from '../native/models.ts'
import { scratchFolder, tinyOptions, train } from './runs.ts'

const sources = llama.parameters(smallSpec({ tiedEmbeddings: false, layers: 12 }))
const tied = llama.parameters(smallSpec())

describe('patterns over tensor names', () => {
  const cases: [string, RegExp][] = [
    ['q_proj', /\.q_proj\.weight$/],
    ['layers.1', /layers\.1\./],
    ['layers.1?', /layers\.1[01]\./],
    ['layers.1*', /layers\.1/],
    ['layers.*.mlp', /\.mlp\./],
    ['{q,v}_proj', /\.[qv]_proj\./],
    ['{layers.3,norm}', /layers\.3\.|model\.norm/],
    ['model.norm.weight', /^model\.norm\.weight$/],
    ['lm_head', /^lm_head/],
    ['/layers\\.(2|11)\\./', /layers\.(2|11)\./],
    ['/norm/', /norm/],
    ['*', /./],
  ]
  for (const [pattern, expected] of cases)
    it(`${pattern}`, () => {
      const found = [...matching(pattern, sources)].map(({ tensor }) => tensor)
      assert.deepEqual(
        found,
        sources.map(({ tensor }) => tensor).filter((tensor) => expected.test(tensor)),
      )
      assert.ok(found.length > 0)
    })

  it('match whole components', () => {
    for (const pattern of ['proj', 'layer', 'ayers.1', 'embed', 'model.norm.weigh', '{q,v}'])
      assert.equal(matching(pattern, sources).size, 0, pattern)
  })
})

describe('what trains', () => {
  const none = { train: [], freeze: [], parameterGroups: [] }
  const select = (options: Partial<Parameters<typeof selectTrainable>[0]>, of: ParameterSource[] = sources) =>
    selectTrainable({ ...none, ...options }, of)
  const size = ({ shape }: ParameterSource) => shape.reduce((product, length) => product * length, 1)

  it('is everything by default', () => {
    const { groups, count } = select({})
    assert.equal(groups, undefined)
    assert.equal(
      count,
      sources.reduce((sum, source) => sum + size(source), 0),
    )
  })

  it('is what train matches without what freeze matches', () => {
    const { groups, count } = select({ train: ['layers.2', 'norm'], freeze: ['mlp', '*_layernorm'] })
    const names = ['q', 'k', 'v', 'o'].map((part) => `layers.2.attention.${part}.weight`)
    assert.deepEqual(groups, [{ names: [...names, 'final_norm.weight'] }])
    const chosen = sources.filter(({ name }) => groups![0]!.names.includes(name))
    assert.equal(
      count,
      chosen.reduce((sum, source) => sum + size(source), 0),
    )
  })

  it('belongs to the first group that matches, or to none', () => {
    const parameterGroups = [
      { pattern: 'embed_tokens', learningRateScale: 0.1 },
      { pattern: '/embed|lm_head/', weightDecay: 0.5 },
    ]
    const { groups } = select({ parameterGroups, train: ['embed_tokens', 'lm_head', 'model.norm'] })
    assert.deepEqual(groups, [
      { names: ['embedding.weight'], learningRateScale: 0.1 },
      { names: ['head.weight'], weightDecay: 0.5 },
      { names: ['final_norm.weight'] },
    ])
  })

  it('may be the rows of new tokens, alone or beside other tensors', () => {
    const rows = { first: 50, count: 3 }
    const alone = selectTrainable({ ...none, train: ['new-tokens'] }, sources, rows)
    assert.deepEqual(alone, {
      groups: [{ names: ['embedding.weight', 'head.weight'], rows: Int32Array.of(50, 3) }],
      count: 2 * 3 * 24,
    })
    const beside = selectTrainable({ ...none, train: ['new-tokens', 'model.norm', 'embed_tokens'] }, sources, rows)
    assert.deepEqual(beside.groups, [
      { names: ['embedding.weight', 'final_norm.weight'] },
      { names: ['head.weight'], rows: Int32Array.of(50, 3) },
    ])
    assert.equal(beside.count, 61 * 24 + 24 + 3 * 24)
    assert.equal(selectTrainable({ ...none, train: ['new-tokens'] }, tied, rows).count, 3 * 24)
  })

  it('is refused where a pattern matches nothing, with what is near', () => {
    const refusals: [Parameters<typeof select>[0], RegExp][] = [
      [{ train: ['q_porj'] }, /^option train: no tensor of the model matches 'q_porj'\. Near it: q_proj/],
      [{ freeze: ['layers.12'] }, /^option freeze: no tensor of the model matches 'layers\.12'/],
      [
        { parameterGroups: [{ pattern: 'attention_norm' }] },
        /^option parameterGroups\[0\]\.pattern: no tensor .* for example, model\.embed_tokens\.weight/,
      ],
    ]
    for (const [options, message] of refusals)
      assert.throws(() => select(options), { code: 'ERR_NO_SUCH_TENSOR', message })
    assert.throws(() => select({ freeze: ['lm_head'] }, tied), {
      code: 'ERR_NO_SUCH_TENSOR',
      message: /tied to its embedding, model\.embed_tokens\.weight/,
    })
  })

  it('is refused where nothing or an empty group is left', () => {
    assert.throws(() => select({ train: ['mlp'], freeze: ['layers'] }), { code: 'ERR_NOTHING_TRAINED' })
    const parameterGroups = [{ pattern: 'mlp', weightDecay: 0 }]
    assert.throws(() => select({ parameterGroups, freeze: ['mlp'] }), { code: 'ERR_INVALID_OPTION', message: /frozen/ })
  })
})

describe('a run with frozen tensors', () => {
  it('writes them as they were, and the others changed', async () => {
    const folder = scratchFolder()
    // The checkpoint of one step at a rate too small to move anything is the start itself.
    const start = await train(tinyOptions(`${folder}`, { output: `${folder}/start`, learningRate: 1e-30, maxSteps: 1 }))
    const options = tinyOptions(folder, {
      model: start.output,
      output: `${folder}/out`,
      train: 'layers.1.mlp',
      epochs: 1,
    })
    const trainer = new Trainer(options)
    const plan = await trainer.plan()
    assert.equal(plan.trainable, 3 * 32 * 48)
    assert.ok(plan.memory.gradients < plan.memory.parameters / 10)
    assert.ok(plan.estimatedSeconds! > 0)
    await trainer.fit()
    const before = await openCheckpoint(start.output)
    const after = await openCheckpoint(options.output)
    for (const { tensor } of before.family.parameters(before.spec)) {
      const same = Buffer.compare(await bytesOf(before, tensor), await bytesOf(after, tensor)) === 0
      assert.equal(same, !tensor.includes('layers.1.mlp'), tensor)
    }
  })
})

async function bytesOf({ tensors }: Awaited<ReturnType<typeof openCheckpoint>>, name: string): Promise<Buffer> {
  const tensor = tensors.tensors.get(name)!
  const parts: Buffer[] = []
  await withFile(tensor.file, (handle) =>
    streamTensor(handle, tensor, 1 << 20, async (bytes) => {
      parts.push(Buffer.from(bytes))
    }),
  )
  return Buffer.concat(parts)
}
