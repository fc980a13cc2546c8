// Parity with Transformers in float32: logits, loss and every gradient tensor of three models, on every backend.
import assert from 'node:assert/strict'
import { describe, it } from 'mocha'
import { itShared } from '../shared.ts'
import { compareTensors, exactSettings, load, readGradients, relativeError } from './engine.ts'
import { checkpointOf, readGolden } from './golden-file.ts'

const cases = ['stories260K', 'llama3-rope', 'linear-rope']

describe('parity with Transformers', () => {
  for (const name of cases) {
    const test = name === 'stories260K' ? itShared : it
    for (const setting of exactSettings) {
      test(`${name} on ${setting.backend} in ${setting.compute}`, async () => {
        const golden = readGolden(name)
        const { engine, checkpoint } = await load(checkpointOf(name), golden.batch, setting)
        try {
          const { vocabSize } = checkpoint.spec
          const all = await engine.logits(golden.batch)
          assert.equal(all.length, golden.batch.tokens.length * vocabSize)
          const chosen = Array.from(golden.logitRows, (row) => [
            ...all.subarray(row * vocabSize, (row + 1) * vocabSize),
          ])
          assertBelow(relativeError(chosen.flat(), golden.logits), 1e-5, 'logits')

          const evaluated = await engine.evaluate(golden.batch)
          const sums = await engine.accumulate(golden.batch, golden.weightSum, true)
          for (const { loss, weight, supervised } of [evaluated, sums]) {
            assertBelow(Math.abs(loss / weight / golden.loss - 1), 1e-5, 'loss')
            assert.equal(weight, golden.weightSum)
            assert.equal(supervised, golden.batch.weights.filter((w) => w > 0).length)
          }
          const tensorOf = new Map(checkpoint.family.parameters(checkpoint.spec).map((p) => [p.name, p.tensor]))
          const native = await readGradients(engine)
          const ours = new Map([...native].map(([own, values]) => [tensorOf.get(own)!, values]))
          for (const { name: tensor, error } of compareTensors(ours, golden.gradients)) {
            assertBelow(error, 1e-4, `gradient of ${tensor}`)
          }
        } finally {
          engine.close()
        }
      })
    }
  }
})

function assertBelow(error: number, bound: number, what: string): void {
  assert.ok(error < bound, `${what}: relative error ${error.toExponential(2)}, allowed ${bound}`)
}
