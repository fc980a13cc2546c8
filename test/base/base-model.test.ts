import assert from 'node:assert/strict'
import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { loadConfig } from '../../lib/cli/config.ts'
import { loadModel, Trainer } from '../../lib/index.ts'
import { judge, type Summary, summarize } from '../../scripts/base/judge.ts'
import { scratchFolder } from '../trainer/runs.ts'

const path = (name: string) => fileURLToPath(new URL(`../../${name}`, import.meta.url))
const assets = path('assets')

/** Answers to the first held-out prompts. All of them, over three seeds, are the work of scripts/base/verify.ts. */
async function answers(folder: string, count: number): Promise<Summary> {
  const model = await loadModel(folder)
  try {
    return summarize(await judge(model, join(assets, 'heldout.jsonl'), count))
  } finally {
    model.close()
  }
}

describe('base model', () => {
  it('takes no more room than a repository can give', () => {
    const files = readdirSync(assets, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
    const bytes = files.reduce((sum, { parentPath, name }) => sum + statSync(join(parentPath, name)).size, 0)
    assert.ok(bytes <= 6_000_000, `${bytes} bytes`)
  })

  it('completes before fine-tuning, and answers and stops after a third of it', async () => {
    const before = await answers(join(assets, 'base'), 10)
    assert.ok(before.stopped <= 0.1, `the base stops in ${before.stopped}`)
    assert.ok(before.accepted <= 0.1, `of the base's answers ${before.accepted} pass`)

    const config = loadConfig(path('examples/demo.json'), [])
    const output = join(scratchFolder(), 'tuned')
    await new Trainer({ ...config, epochs: 3, output }).fit()
    const after = await answers(output, 30)
    assert.ok(after.stopped >= 0.95, `the tuned model stops in ${after.stopped}`)
    assert.ok(after.accepted >= 0.4, `of the tuned model's answers ${after.accepted} pass`)
  }).timeout(180_000)
})
