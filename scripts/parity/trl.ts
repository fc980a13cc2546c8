/**
 * Our side of the comparison with TRL: the runs that scripts/python/trl_parity.py has recorded, again, step by step.
 *
 *     npx tsx scripts/parity/trl.ts OUT [--device cpu|reference]     exits with 1 where a loss is off by 1e-5 or more
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { type Recorded, repeat, type Step, worst } from './trl-run.ts'

const bound = 1e-5
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { device: { type: 'string', default: 'cpu' } },
})
const [out] = positionals
if (!out) throw new Error('usage: trl.ts OUT [--device cpu|reference]')
let failed = false
console.log('| variant | loss, first → last step | loss | gradient norm | learning rate | TRL against itself: loss |')
console.log('| --- | --- | --- | --- | --- | --- |')
for (const variant of ['plain', 'decay', 'accumulation']) {
  const recorded = JSON.parse(readFileSync(join(out, `${variant}.json`), 'utf8')) as Recorded & { sdpa: Step[] }
  const steps = await repeat(join(out, `ours-${variant}`), recorded, values.device as 'cpu' | 'reference')
  const errors = (['loss', 'gradNorm', 'learningRate'] as const).map((key) => worst(steps, recorded.eager, key))
  failed ||= errors[0]! >= bound
  const course = `${steps[0]!.loss.toFixed(6)} → ${steps.at(-1)!.loss.toFixed(6)}`
  const cells = [...errors, worst(recorded.sdpa, recorded.eager, 'loss')].map((error) => error.toExponential(1))
  console.log(`| ${[variant, course, ...cells].join(' | ')} |`)
}
if (failed) {
  console.error(`a loss differs by ${bound} or more`)
  process.exitCode = 1
}
