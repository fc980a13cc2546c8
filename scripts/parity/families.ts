// `families.ts`: how far every backend is from Transformers on the models of test/golden/families, as the table of
// docs/models.md.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { exactSettings } from '../../test/parity/engine.ts'
import { familyCases, readFamilyCase } from '../../test/parity/family-cases.ts'
import { measureFamily } from '../../test/parity/family-parity.ts'

const parent = mkdtempSync(join(tmpdir(), 'tunesmith-families-'))
console.log('| case | backend | logits | loss | worst gradient tensor | ten steps |')
console.log('| --- | --- | --- | --- | --- | --- |')
for (const name of familyCases) {
  const worst = { logits: 0, loss: 0, gradient: 0, tensor: '', step: 0 }
  for (const setting of exactSettings) {
    const { logits, loss, gradients, steps } = await measureFamily(
      mkdtempSync(join(parent, 'x')),
      readFamilyCase(name),
      setting,
    )
    const { name: tensor, error } = gradients[0]!
    console.log(
      `| ${[name, `${setting.backend} ${setting.compute}`, show(logits), show(loss), `${show(error)} ${tensor}`, show(Math.max(...steps))].join(' | ')} |`,
    )
    worst.logits = Math.max(worst.logits, logits)
    worst.loss = Math.max(worst.loss, loss)
    worst.gradient = Math.max(worst.gradient, error)
    worst.step = Math.max(worst.step, ...steps)
  }
  console.log(
    `| **${name}** | worst | ${show(worst.logits)} | ${show(worst.loss)} | ${show(worst.gradient)} | ${show(worst.step)} |`,
  )
}
rmSync(parent, { recursive: true })

function show(error: number): string {
  return error.toExponential(1)
}
