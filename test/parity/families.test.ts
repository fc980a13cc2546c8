// Parity with Transformers of every family, on every backend: logits, loss, the gradient of every tensor, ten AdamW steps,
// and what is saved.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { describe, it } from 'mocha'
import { readConfig } from '../../lib/checkpoint/families/index.ts'
import { saveCheckpoint } from '../../lib/checkpoint/save.ts'
import { temporaryFolder, writeTokenizer } from '../checkpoint/fixtures.ts'
import { exactSettings, load } from './engine.ts'
import { familyCases, readFamilyCase, sha256, writeCase } from './family-cases.ts'
import { measureDecoding, measureFamily } from './family-parity.ts'
import { readTensors } from './golden-file.ts'

describe('parity of the families with Transformers', () => {
  const folder = temporaryFolder()

  for (const name of familyCases) {
    for (const setting of [...exactSettings, { ...exactSettings.at(-1)!, recompute: true }]) {
      const title = Object.values(setting).slice(0, 2).join(' in ') + ('recompute' in setting ? ', recomputing' : '')
      it(`${name} on ${title}`, async () => {
        const parity = await measureFamily(folder(), readFamilyCase(name), setting)
        assertBelow(parity.logits, 1e-5, 'logits')
        assertBelow(parity.loss, 1e-5, 'loss')
        for (const { name: tensor, error } of parity.gradients) assertBelow(error, 1e-4, `gradient of ${tensor}`)
        assert.equal(parity.steps.length, 10)
        for (const [step, error] of parity.steps.entries()) assertBelow(error, 1e-5, `loss before step ${step + 1}`)
      })
    }

    // Eight bits: a wrong formula is off by far more. How much PyTorch loses in bfloat16 is the measure of bf16.test.ts.
    it(`${name} on cpu in bfloat16`, async () => {
      const parity = await measureFamily(folder(), readFamilyCase(name), { backend: 'cpu', compute: 'bfloat16' })
      assertBelow(parity.logits, 0.03, 'logits')
      for (const { name: tensor, error } of parity.gradients) assertBelow(error, 0.15, `gradient of ${tensor}`)
      for (const [step, error] of parity.steps.entries()) assertBelow(error, 5e-3, `loss before step ${step + 1}`)
    })

    for (const together of [false, true]) {
      it(`${name}: decoding with a key/value cache, ${together ? 'all at once' : 'one by one'}`, async () => {
        for (const setting of exactSettings) {
          const error = await measureDecoding(folder(), readFamilyCase(name), setting, together)
          assertBelow(error, 1e-5, setting.backend)
        }
      })
    }

    it(`${name}: what is saved is what Transformers wrote, bit by bit`, async () => {
      const golden = readFamilyCase(name)
      writeCase(join(folder(), 'source'), golden)
      writeTokenizer(join(folder(), 'tokenizer'))
      const { engine, checkpoint } = await load(join(folder(), 'source'), golden.batch, { training: false })
      try {
        await saveCheckpoint({
          ...{ folder: join(folder(), 'out'), model: checkpoint, engine },
          ...{ tokenizerFolder: join(folder(), 'tokenizer'), stopTokenIds: [2] },
        })
      } finally {
        engine.close()
      }
      const { tensors, shapes } = readTensors(join(folder(), 'out', 'model.safetensors'))
      assert.deepEqual([...tensors.keys()].sort(), Object.keys(golden.tensors))
      for (const [tensor, { shape, sha256: expected }] of Object.entries(golden.tensors)) {
        assert.deepEqual(shapes.get(tensor), shape, tensor)
        assert.equal(sha256(new Uint8Array(tensors.get(tensor)!.buffer)), expected, tensor)
      }
    })

    it(`${name}: the config says the same in the form that Transformers writes`, () => {
      const { config, savedConfig } = readFamilyCase(name)
      const ours = readConfig(config, 'config.json')
      const theirs = readConfig(savedConfig, 'saved/config.json')
      assert.deepEqual(ours.unknown, [])
      assert.deepEqual(theirs.unknown, [])
      assert.equal(ours.family, theirs.family)
      assert.deepEqual(ours.spec, theirs.spec)
    })
  }
})

function assertBelow(error: number, bound: number, what: string): void {
  assert.ok(error < bound, `${what}: relative error ${error.toExponential(2)}, allowed ${bound}`)
}
