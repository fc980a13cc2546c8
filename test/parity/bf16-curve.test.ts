// The loss curve in bfloat16 stays within 1 % of float32. scripts/parity/bf16-curve.ts is the same over 200 steps.
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe } from 'mocha'
import { largestDeviation, lossCurve } from '../../scripts/parity/bf16-curve.ts'
import { itShared } from '../shared.ts'

describe('bfloat16 training', () => {
  itShared('follows float32 for 40 steps within 1 %', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'tunesmith-bf16-'))
    try {
      const exact = await lossCurve(folder, 40, 'float32')
      const rounded = await lossCurve(folder, 40, 'bfloat16')
      assert.equal(exact.length, 40)
      const deviation = largestDeviation(rounded, exact)
      assert.ok(deviation < 0.01, `${(deviation * 100).toFixed(3)} %`)
      assert.ok(deviation > 1e-6, 'both runs were computed in float32')
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  }).timeout(180_000)
})
