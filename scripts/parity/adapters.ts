// `adapters.ts OUT`: for scripts/python/check_adapter.py. Every model of test/golden/families goes to OUT/bases/NAME, and
// an adapter of all its projections, trained for three steps, to OUT/ours/NAME, with its logits beside it; every other one
// is a DoRA. `adapters.ts OUT read`: the logits of the adapters that PEFT has written to OUT/theirs/NAME.
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Adapter, engineAdapters } from '../../lib/checkpoint/adapter/adapter.ts'
import { adaptedModules, modelModules } from '../../lib/checkpoint/adapter/modules.ts'
import { openModel } from '../../lib/checkpoint/adapter/open-model.ts'
import { saveAdapter } from '../../lib/checkpoint/adapter/save.ts'
import { adapterSources, loadAdapter } from '../../lib/checkpoint/adapter/weights.ts'
import { openCheckpoint } from '../../lib/checkpoint/open.ts'
import { writeTokenizer } from '../../test/checkpoint/fixtures.ts'
import { load } from '../../test/parity/engine.ts'
import { familyCases, readFamilyCase, writeCase } from '../../test/parity/family-cases.ts'

const [out, mode] = process.argv.slice(2)
if (out === undefined) throw new Error('adapters.ts OUT [read]')
const tokenizerFolder = join(out, 'tokenizer')
if (mode === undefined) writeTokenizer(tokenizerFolder)
for (const [index, name] of familyCases.entries()) {
  const golden = readFamilyCase(name)
  const base = join(out, 'bases', name)
  const setting = { backend: 'cpu', compute: 'float32' } as const
  if (mode === 'read') {
    const { adapter } = await openModel(join(out, 'theirs', name))
    const { engine } = await load(base, golden.batch, { ...setting, adapters: engineAdapters(adapter!) })
    await loadAdapter(adapter!, engine)
    writeLogits(join(out, 'theirs', name), await engine.logits(golden.batch))
    engine.close()
    continue
  }
  mkdirSync(base, { recursive: true })
  writeCase(base, golden)
  const model = await openCheckpoint(base)
  const settings = {
    ...{ rank: 3, alpha: 6, dropout: 0, targets: 'all-linear', rankPattern: {}, alphaPattern: {} },
    ...{ rslora: false, dora: index % 2 === 1 },
  }
  const modules = adaptedModules(settings, modelModules(model))
  const adapter: Adapter = { settings, modules, base: { name: base, revision: undefined }, stored: undefined }
  const { engine } = await load(base, golden.batch, { ...setting, adapters: engineAdapters(adapter) })
  await engine.initializeAdapters(index)
  await engine.commit()
  for (let step = 1; step <= 3; step++) {
    await engine.accumulate(golden.batch, golden.weightSum, true)
    await engine.optimizerStep({
      ...{ learningRate: 3e-2, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 },
      ...{ weightDecay: 0.1, maxGradNorm: 1, step },
    })
  }
  const folder = join(out, 'ours', name)
  mkdirSync(join(out, 'ours'), { recursive: true })
  await saveAdapter({ folder, adapter, sources: adapterSources(adapter, engine), model, tokenizerFolder })
  writeLogits(folder, await engine.logits(golden.batch))
  engine.close()
}

function writeLogits(folder: string, logits: Float32Array): void {
  writeFileSync(join(folder, 'logits.f32'), new Uint8Array(logits.buffer, logits.byteOffset, logits.byteLength))
}
