import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { loadConfig } from '../../lib/cli/config.ts'

describe('the configuration file', () => {
  let folder: string

  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'tunesmith-'))
  })
  after(() => rmSync(folder, { recursive: true }))

  const load = (content: string, sets: string[] = [], name = 'config.json'): Record<string, unknown> => {
    writeFileSync(join(folder, name), content)
    return loadConfig(join(folder, name), sets) as unknown as Record<string, unknown>
  }

  it('has its paths relative to its own folder', () => {
    const text = '{"model": "m", "output": "/o", "data": {"train": ["a", {"path": "b"}]}, "chatTemplate": "t.jinja"}'
    assert.deepEqual(load(text), {
      model: join(folder, 'm'),
      output: '/o',
      data: { train: [join(folder, 'a'), { path: join(folder, 'b') }] },
      chatTemplate: join(folder, 't.jinja'),
    })
    assert.deepEqual(load('{"chatTemplate": "chatml"}'), { chatTemplate: 'chatml' })
  })

  it('may be YAML', () => {
    const text = '# a comment\nmodel: m\nlearningRate: 2e-5\nbetas: [0.9, 0.95]\ndata:\n  train: t.jsonl\n'
    for (const name of ['c.yaml', 'c.yml'])
      assert.deepEqual(load(text, [], name), {
        model: join(folder, 'm'),
        learningRate: 2e-5,
        betas: [0.9, 0.95],
        data: { train: join(folder, 't.jsonl') },
      })
  })

  it('is overridden by --set, in order, with typed values', () => {
    const sets = ['epochs=2', 'learningRate=1e-4', 'shuffle=false', 'betas=[0.9, 0.95]', 'schedule=linear', 'epochs=1']
    assert.deepEqual(load('{"epochs": 3, "seed": 1}', sets), {
      seed: 1,
      learningRate: 1e-4,
      shuffle: false,
      betas: [0.9, 0.95],
      schedule: 'linear',
      epochs: 1,
    })
  })

  it('keeps the rest of an object of which --set changes one key, and takes paths from the working directory', () => {
    assert.deepEqual(load('{"data": {"train": "t", "evalFraction": 0.1}}', ['data.train=x=y.jsonl']), {
      data: { train: resolve('x=y.jsonl'), evalFraction: 0.1 },
    })
    assert.deepEqual(load('{}', ['data.onBadRow=skip']), { data: { onBadRow: 'skip' } })
  })

  it('has an object replaced whole by --set of an object', () => {
    const { adapter } = load('{"adapter": {"type": "lora", "rank": 4, "dora": true}}', [
      'adapter={type: lora, alpha: 8}',
    ])
    assert.deepEqual(adapter, { type: 'lora', alpha: 8 })
  })

  it('is no data file', () => {
    for (const name of ['rows.jsonl', 'rows.csv', 'rows.jsonl.gz', 'rows.parquet'])
      assert.throws(() => load('{"messages": [{"a": 1}]}\n{"b": 2}\n', [], name), {
        code: 'ERR_CONFIG_READ',
        message: /is a data file, not a configuration: name it as data\.train/,
      })
  })

  it('has an object emptied by an empty one', () => {
    assert.deepEqual(load('{"samples": {"prompts": ["a"]}}', ['samples={}']), { samples: {} })
    assert.deepEqual(load('{"seed": 1}', ['samples={}']), { seed: 1, samples: {} })
  })

  it('loses a key to an empty --set', () => {
    assert.deepEqual(load('{"batchSize": 4, "seed": 1}', ['batchSize=', 'batchTokens=512']), {
      seed: 1,
      batchTokens: 512,
    })
    assert.deepEqual(load('{"data": {"train": "/t", "evalFraction": 0.1}}', ['data.evalFraction=']), {
      data: { train: '/t' },
    })
  })

  it('cannot be used to reach into objects of JavaScript', () => {
    for (const set of ['__proto__.x=1', 'data.__proto__.x=1', '.a=1', 'a..b=1', '=1', 'a b=1'])
      assert.throws(() => load('{}', [set]), { code: 'ERR_USAGE' }, set)
  })
})
