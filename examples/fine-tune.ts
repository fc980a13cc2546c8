/**
 * Fine-tuning from a program: a tenth of the conversations held out, progress from typed events, Ctrl-C ends the run.
 *
 *     npx tsx examples/fine-tune.ts
 *
 * Outside of this repository, import from 'tunesmith'.
 */
import { loadModel, Trainer } from '../lib/index.ts'

const abort = new AbortController()
process.once('SIGINT', () => abort.abort())

const trainer = new Trainer({
  model: 'assets/base',
  data: { train: 'assets/demonstrations.jsonl', evalFraction: 0.1 },
  output: 'runs/example',
  epochs: 3,
  learningRate: 5e-4,
  warmupRatio: 0.1,
})
trainer.on('plan', ({ supervisedTokens, tokens, steps }) => {
  console.log(`${steps} steps; ${supervisedTokens} of ${tokens} tokens carry loss`)
})
trainer.on('warning', ({ message }) => console.warn(message))
trainer.on('step', ({ step, steps, loss, tokensPerSecond }) => {
  if (step % 10 === 0) console.log(`${step}/${steps}  loss ${loss.toFixed(3)}  ${Math.round(tokensPerSecond)} tokens/s`)
})
trainer.on('eval', ({ step, loss, tokenAccuracy }) => {
  console.log(`held out, after step ${step}: loss ${loss.toFixed(3)}, ${(100 * tokenAccuracy).toFixed(1)} % of tokens`)
})
const { output, seconds } = await trainer.fit({ signal: abort.signal })
console.log(`${output} after ${Math.round(seconds)} s`)

const model = await loadModel(output)
await model.generate([{ role: 'user', content: 'Write a story about Sue the deer, who finds a green jewel.' }], {
  onToken: (piece) => process.stdout.write(piece),
})
process.stdout.write('\n')
model.close()
