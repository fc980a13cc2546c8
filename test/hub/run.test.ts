import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { loadModel, type PrepareEvent, Trainer } from '../../lib/index.ts'
import { exchange, failure, jsonl } from '../data/helpers.ts'
import { scratchFolder } from '../trainer/runs.ts'
import { type FakeHub, fakeHub } from './server.ts'

const base = fileURLToPath(new URL('../../assets/base', import.meta.url))

describe('a run from the hub', () => {
  let server: FakeHub
  const kept = { ...process.env }
  before(async () => {
    const files: Record<string, { content: Buffer; lfs?: boolean }> = {}
    for (const name of ['config.json', 'tokenizer.json', 'tokenizer_config.json'])
      files[name] = { content: await readFile(join(base, name)) }
    files['model.safetensors'] = { content: await readFile(join(base, 'model.safetensors')), lfs: true }
    const rows = Array.from({ length: 20 }, (_, i) => exchange(`What is ${i} and one?`, `It is ${i + 1}.`))
    const commit = '5'.repeat(40)
    server = await fakeHub({
      'models/org/base': { commit, files },
      'datasets/org/chat': {
        commit,
        files: { 'data/train.jsonl': jsonl(...rows), 'data/validation.jsonl': jsonl(...rows.slice(5)) },
      },
    })
    process.env.HF_ENDPOINT = server.endpoint
    process.env.HF_HUB_CACHE = scratchFolder()
  })
  after(async () => {
    for (const name of ['HF_ENDPOINT', 'HF_HUB_CACHE', 'HF_HUB_OFFLINE']) {
      if (kept[name] === undefined) delete process.env[name]
      else process.env[name] = kept[name]
    }
    await server.close()
  })

  it('plans with model and data by name, tells of the download, and again offline', async () => {
    const options = {
      model: 'org/base',
      data: { train: 'org/chat', eval: 'hf://datasets/org/chat/data/validation.jsonl' },
      output: scratchFolder(),
      maxSteps: 1,
      threads: 1,
    }
    const trainer = new Trainer(options)
    const downloads: PrepareEvent[] = []
    trainer.on('prepare', (event) => {
      if (event.stage === 'download') downloads.push(event)
    })
    const plan = await trainer.plan()
    assert.deepEqual([plan.data.rows, plan.conversations, plan.evalConversations], [35, 20, 15])
    assert.ok(plan.formats.every(({ format }) => format === 'messages'))
    assert.ok(downloads.some(({ done, total }) => done === total && total! > 100_000))
    await server.close()
    process.env.HF_HUB_OFFLINE = '1'
    const again = await new Trainer(options).plan()
    assert.deepEqual(again.data, plan.data)
    const model = await loadModel('org/base', { device: 'reference', threads: 1 })
    assert.match(model.folder, /models--org--base/)
    model.close()
    await assert.rejects(
      new Trainer({ ...options, data: { train: 'org/other' } }).plan(),
      failure('ERR_HUB_UNREACHABLE', 'There is no file org/other here', 'HF_HUB_OFFLINE is set'),
    )
  })
})
