import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { scratchFolder } from './trainer/runs.ts'

const root = fileURLToPath(new URL('..', import.meta.url))

const program = `
import { loadModel, Trainer, TunesmithError, type StepEvent, type TrainerOptions } from 'tunesmith'
const options: TrainerOptions = { model: 'base', data: { train: 'train.jsonl' }, output: 'out', maxSteps: undefined }
const trainer = new Trainer(options)
const steps: StepEvent[] = []
trainer.on('step', (event) => steps.push(event))
trainer.once('end', ({ output, history }) => console.log(output, history.steps.length))
// @ts-expect-error no such event
trainer.on('stepp', () => {})
// @ts-expect-error no such option
new Trainer({ ...options, learningrate: 1 })
const result = await trainer.fit({ signal: AbortSignal.timeout(1000) })
const model = await loadModel(result.output)
const { text, finishReason } = await model.generate([{ role: 'user', content: 'Hello' }], { temperature: 0.5 })
console.log(text.length, finishReason === 'stop', result.data.droppedTokens, TunesmithError.name)
`

const settings = {
  nodenext: { module: 'nodenext', moduleResolution: 'nodenext' },
  bundler: { module: 'esnext', moduleResolution: 'bundler' },
}

/** How other people's projects see the declarations in dist, with nothing left out of the check. */
describe('a project that uses the package', () => {
  for (const [name, resolution] of Object.entries(settings)) {
    it(`type-checks under moduleResolution ${name}`, async () => {
      const folder = scratchFolder()
      mkdirSync(join(folder, 'node_modules'))
      symlinkSync(root, join(folder, 'node_modules', 'tunesmith'))
      writeFileSync(join(folder, 'package.json'), '{ "type": "module" }')
      writeFileSync(join(folder, 'main.ts'), program)
      const compilerOptions = {
        ...resolution,
        target: 'es2022',
        strict: true,
        exactOptionalPropertyTypes: true,
        skipLibCheck: false,
        noEmit: true,
        types: ['node'],
        typeRoots: [join(root, 'node_modules/@types')],
      }
      writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['main.ts'] }))
      const tsc = join(root, 'node_modules/typescript/bin/tsc')
      const run = promisify(execFile)(process.execPath, [tsc, '-p', folder])
      const output = await run.then(
        () => '',
        (error: { stdout: string }) => error.stdout,
      )
      assert.equal(output, '')
    })
  }
})
