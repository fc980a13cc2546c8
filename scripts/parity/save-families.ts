// `save-families.ts OUT`: every model of test/golden/families, trained for three steps and saved to OUT/NAME, with its
// logits on the golden micro-batch beside it. For scripts/python/check_families.py.
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { saveCheckpoint } from '../../lib/checkpoint/save.ts'
import { writeTokenizer } from '../../test/checkpoint/fixtures.ts'
import { load } from '../../test/parity/engine.ts'
import { familyCases, readFamilyCase, writeCase } from '../../test/parity/family-cases.ts'

const [out] = process.argv.slice(2)
if (out === undefined) throw new Error('save-families.ts OUT')
const tokenizerFolder = join(out, 'tokenizer')
writeTokenizer(tokenizerFolder)
for (const name of familyCases) {
  const golden = readFamilyCase(name)
  const { batch, weightSum } = golden
  const source = join(out, 'sources', name)
  mkdirSync(source, { recursive: true })
  writeCase(source, golden)
  const { engine, checkpoint } = await load(source, batch, { backend: 'cpu', compute: 'float32' })
  for (let step = 1; step <= 3; step++) {
    await engine.accumulate(batch, weightSum, true)
    await engine.optimizerStep({
      ...{ learningRate: 1e-2, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 },
      ...{ weightDecay: 0.1, maxGradNorm: 1, step },
    })
  }
  const folder = join(out, name)
  await saveCheckpoint({ folder, model: checkpoint, engine, tokenizerFolder, stopTokenIds: [2] })
  const logits = await engine.logits(batch)
  writeFileSync(join(folder, 'logits.f32'), new Uint8Array(logits.buffer, logits.byteOffset, logits.byteLength))
  engine.close()
}
