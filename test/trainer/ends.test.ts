import assert from 'node:assert/strict'
import { chmodSync, existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Trainer, TunesmithError } from '../../lib/index.ts'
import { scratchFolder, tinyConfig, tinyOptions, tokenizer, train, writeConversations } from './runs.ts'

/** No checkpoint, and none half-written. */
function assertNothingWritten(folder: string): void {
  const output = join(folder, 'out')
  if (!existsSync(output)) return
  assert.deepEqual(
    readdirSync(output).filter((name) => name !== 'metrics.jsonl'),
    [],
  )
}

describe('how a run ends', () => {
  it('aborted before it began', async () => {
    const folder = scratchFolder()
    const reason = new Error('not today')
    await assert.rejects(new Trainer(tinyOptions(folder)).fit({ signal: AbortSignal.abort(reason) }), reason)
    assertNothingWritten(folder)
  })

  it('aborted during training', async () => {
    const folder = scratchFolder()
    const trainer = new Trainer(tinyOptions(folder, { epochs: 1000 }))
    const controller = new AbortController()
    const reason = new Error('enough')
    trainer.on('step', ({ step }) => step === 3 && setTimeout(() => controller.abort(reason), 1))
    await assert.rejects(trainer.fit({ signal: controller.signal }), reason)
    assertNothingWritten(folder)
  })

  it('aborted while data is prepared', async () => {
    const folder = scratchFolder()
    const trainer = new Trainer(tinyOptions(folder, { data: { train: writeConversations(folder, 5000) } }))
    const controller = new AbortController()
    trainer.once('prepare', () => controller.abort())
    await assert.rejects(trainer.fit({ signal: controller.signal }), { name: 'AbortError' })
    assertNothingWritten(folder)
  })

  it('aborted after it ended: nothing happens', async () => {
    const controller = new AbortController()
    const result = await new Trainer(tinyOptions(scratchFolder())).fit({ signal: controller.signal })
    controller.abort()
    assert.ok(existsSync(join(result.output, 'config.json')))
  })

  it("a listener's error rejects fit(), and the trainer can be used again", async () => {
    const folder = scratchFolder()
    const trainer = new Trainer(tinyOptions(folder))
    const failing = () => {
      throw new Error('listener')
    }
    trainer.on('step', failing)
    await assert.rejects(trainer.fit(), /listener/)
    assertNothingWritten(folder)
    trainer.off('step', failing)
    assert.equal((await trainer.fit()).steps, 6)
  })

  it('refuses to run twice at once', async () => {
    const trainer = new Trainer(tinyOptions(scratchFolder()))
    const first = trainer.fit()
    await assert.rejects(trainer.fit(), { code: 'ERR_BUSY' })
    await first
  })

  it('weights that diverge are not stepped on, and the rows are named', async () => {
    const folder = scratchFolder()
    const options = tinyOptions(folder, {
      learningRate: 1e30,
      maxGradNorm: 0,
      optimizer: 'sgd',
      warmupSteps: 0,
      epochs: 50,
    })
    await assert.rejects(train(options), (error: TunesmithError) => {
      assert.match(error.code, /^ERR_NON_FINITE_(LOSS|GRADIENT)$/)
      assert.match(error.message, /train\.jsonl:\d+/)
      return true
    })
    assertNothingWritten(folder)
  })
})

describe('bad input', () => {
  const row = (...messages: [string, unknown][]) =>
    JSON.stringify({ messages: messages.map(([role, content]) => ({ role, content })) })
  const good = row(['user', 'Hello?'], ['assistant', 'Hello.'])

  const dataCases: [string, string, string, RegExp][] = [
    ['a broken line', `${good}\n{"messages": [`, 'ERR_BAD_ROW', /bad\.jsonl:2/],
    ['an unknown role', `${good}\n${row(['wizard', 'a'], ['assistant', 'b'])}`, 'ERR_BAD_ROW', /bad\.jsonl:2.*wizard/s],
    ['no assistant turn', `${good}\n${row(['user', 'a'])}`, 'ERR_BAD_ROW', /bad\.jsonl:2.*assistant/s],
    ['empty content', `${good}\n${row(['user', 'a'], ['assistant', ''])}`, 'ERR_BAD_ROW', /bad\.jsonl:2/],
    ['an empty file', '', 'ERR_EMPTY_DATASET', /bad\.jsonl/],
    [
      'conversations longer than the context',
      row(['user', 'Hello? '.repeat(500)], ['assistant', 'Hello.']),
      'ERR_TOO_LONG',
      /128 tokens/,
    ],
  ]
  for (const [name, text, code, message] of dataCases) {
    it(name, async () => {
      const folder = scratchFolder()
      const path = join(folder, 'bad.jsonl')
      writeFileSync(path, text)
      await assert.rejects(train(tinyOptions(folder, { data: { train: path } })), (error: unknown) => {
        assert.ok(error instanceof TunesmithError, `${error}`)
        assert.equal(error.code, code)
        assert.match(error.message, message)
        return true
      })
      assertNothingWritten(folder)
    })
  }

  it('a data file that is not there', async () => {
    const folder = scratchFolder()
    const options = tinyOptions(folder, { data: { train: join(folder, 'nowhere.jsonl') } })
    await assert.rejects(train(options), (error: unknown) => {
      assert.ok(error instanceof TunesmithError, `${error}`)
      assert.match(error.message, /nowhere\.jsonl/)
      return true
    })
  })

  const configCases: [string, object, string, RegExp][] = [
    [
      'an unsupported architecture',
      { architectures: ['MambaForCausalLM'], model_type: 'mamba' },
      'ERR_UNSUPPORTED_ARCHITECTURE',
      /Mamba/,
    ],
    ['an unsupported rope type', { rope_scaling: { rope_type: 'su', factor: 4 } }, 'ERR_UNSUPPORTED_ROPE', /su/],
    ['a tokenizer larger than the embedding', { vocab_size: 100 }, 'ERR_VOCAB_TOO_SMALL', /2047.*100/s],
  ]
  for (const [name, change, code, message] of configCases) {
    it(name, async () => {
      const folder = scratchFolder()
      const options = tinyOptions(folder, {
        model: { config: { ...tinyConfig, ...change }, tokenizer, init: 'random' },
      })
      await assert.rejects(train(options), (error: TunesmithError) => {
        assert.equal(error.code, code)
        assert.match(error.message, message)
        return true
      })
      assertNothingWritten(folder)
    })
  }

  it('a model folder without weights', async () => {
    const folder = scratchFolder()
    const model = join(folder, 'model')
    mkdirSync(model)
    writeFileSync(join(model, 'config.json'), JSON.stringify(tinyConfig))
    await assert.rejects(train(tinyOptions(folder, { model })), TunesmithError)
  })

  it('an output folder that cannot be written', async () => {
    const folder = scratchFolder()
    const file = join(folder, 'file')
    writeFileSync(file, 'not a folder')
    await assert.rejects(train(tinyOptions(folder, { output: join(file, 'out') })), { code: 'ERR_OUTPUT_NOT_WRITABLE' })
    if (process.getuid?.() !== 0) {
      chmodSync(folder, 0o500)
      await assert.rejects(train(tinyOptions(folder)), { code: 'ERR_OUTPUT_NOT_WRITABLE' })
      chmodSync(folder, 0o700)
    }
  })

  it('a learning rate that is no number', () => {
    assert.throws(() => new Trainer(tinyOptions(scratchFolder(), { learningRate: Number.NaN })), {
      code: 'ERR_INVALID_OPTION',
    })
  })

  it('a maxLength beyond the context', async () => {
    await assert.rejects(train(tinyOptions(scratchFolder(), { maxLength: 129 })), { code: 'ERR_INVALID_OPTION' })
  })

  it('more than all the memory there is', async () => {
    const config = { ...tinyConfig, num_hidden_layers: 4000, hidden_size: 8192, intermediate_size: 65536, head_dim: 64 }
    const options = tinyOptions(scratchFolder(), { model: { config, tokenizer, init: 'random' } })
    await assert.rejects(train(options), { code: /ERR_OUT_OF_MEMORY|ERR_OUTPUT_FULL/ } as never)
  })
})
