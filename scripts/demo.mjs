#!/usr/bin/env node
/**
 * The main job in one command, after `npm run setup`: takes the tiny base model of assets/base, lets it complete three
 * prompts, fine-tunes it on assets/demonstrations.jsonl and gives it the same prompts again. Arguments are `key=value`, as
 * behind the `--set` of `tunesmith train`: `npm run demo -- epochs=2`.
 */
import { existsSync, readFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
if (!existsSync(join(root, 'dist', 'index.js'))) {
  console.error('The project is not built yet. Run: npm run setup')
  process.exit(1)
}
const { loadModel, Trainer } = await import('../dist/index.js')
const { loadConfig } = await import('../dist/cli/config.js')
const { showProgress } = await import('../dist/cli/progress.js')

/** The first three prompts that were kept out of the demonstrations: two stories and a question. */
const prompts = readFileSync(join(root, 'assets', 'heldout.jsonl'), 'utf8')
  .split('\n', 3)
  .map((line) => JSON.parse(line).messages[0].content)
const maxNewTokens = 160

const heading = (text) => console.log(`\n== ${text} ${'='.repeat(Math.max(0, 76 - text.length))}\n`)

async function answer(folder) {
  const model = await loadModel(folder, { precision: config.precision ?? 'auto' })
  try {
    for (const content of prompts) {
      const { text, finishReason } = await model.generate([{ role: 'user', content }], { maxNewTokens })
      const end =
        finishReason === 'stop' ? '[stopped by itself]' : `[did not stop: cut off after ${maxNewTokens} tokens]`
      console.log(`> ${content}\n${text.trim() || '(nothing but white space)'}\n${end}\n`)
    }
  } finally {
    model.close()
  }
}

const config = loadConfig(join(root, 'examples', 'demo.json'), process.argv.slice(2))
/** From here where that is shorter to type. */
const path = (absolute) => {
  const here = relative(process.cwd(), absolute)
  return here.startsWith('..') ? absolute : here
}

heading('Before: the base model')
await answer(config.model)

heading('Fine-tuning on 900 demonstrations, as examples/demo.json says')
const abort = new AbortController()
process.once('SIGINT', () => abort.abort())
const trainer = new Trainer(config)
const close = showProgress(trainer, { stdout: process.stdout, stderr: process.stderr }, false, 25)
try {
  await trainer.fit({ signal: abort.signal })
} catch (error) {
  if (!abort.signal.aborted) throw error
  close()
  console.error('interrupted: no checkpoint was written')
  process.exit(130)
} finally {
  close()
}

heading('After: the fine-tuned model')
await answer(config.output)

console.log(`The checkpoint is in ${path(config.output)}. Talk to it:

  node ${path(join(root, 'dist', 'cli', 'main.js'))} generate ${path(config.output)} --prompt "Tell me a story about a fox named Pip who finds a red button."
`)
