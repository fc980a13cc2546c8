// 50 optimizer steps against TRL's SFTTrainer, whose losses scripts/python/trl_parity.py has recorded: at every step the
// loss agrees within 1e-5. Rendering, loss weights, order, schedule, clipping, AdamW and decay are all in it.
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe } from 'mocha'
import { type Recorded, repeat, worst } from '../../scripts/parity/trl-run.ts'
import { itShared } from '../shared.ts'
import { goldenPath } from './golden-file.ts'

const variants = JSON.parse(readFileSync(goldenPath('trl.json'), 'utf8')) as Record<string, Recorded>

describe('parity with TRL over 50 steps', () => {
  for (const [variant, recorded] of Object.entries(variants)) {
    itShared(variant, async () => {
      const folder = mkdtempSync(join(tmpdir(), 'tunesmith-trl-'))
      try {
        const steps = await repeat(folder, recorded, 'cpu')
        assert.equal(steps.length, 50)
        assert.ok(worst(steps, recorded.eager, 'loss') < 1e-5)
        assert.ok(worst(steps, recorded.eager, 'gradNorm') < 1e-4)
        assert.ok(worst(steps, recorded.eager, 'learningRate') < 1e-12)
      } finally {
        rmSync(folder, { recursive: true, force: true })
      }
    }).timeout(180_000)
  }
})
