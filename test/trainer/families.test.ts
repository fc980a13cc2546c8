// Every family through the whole way: made from a config, trained, saved, opened again, asked something.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import type { EvalEvent, TrainerOptions } from '../../lib/index.ts'
import { loadModel, Trainer } from '../../lib/index.ts'
import { readFamilyCase } from '../parity/family-cases.ts'
import { scratchFolder, tinyOptions, tokenizer, writeConversations } from './runs.ts'

const names = [
  ...['mistral', 'qwen2', 'qwen3', 'gemma2', 'gemma3', 'phi3-longrope', 'olmo2'],
  ...['smollm3', 'gpt2', 'gpt-neox', 'stablelm', 'granite'],
]

describe('fit of a family', () => {
  for (const name of names) {
    it(`${name}: learns, and goes on from its checkpoint where it ended`, async () => {
      const { config } = readFamilyCase(name)
      const context = config.model_type === 'gpt2' ? { n_positions: 128 } : { max_position_embeddings: 128 }
      const folder = scratchFolder()
      const evaluated = { eval: writeConversations(folder, 8, 'eval.jsonl') }
      const options = tinyOptions(folder, {
        model: { config: { ...config, ...context, vocab_size: 2048 }, tokenizer, init: 'random' },
        data: { train: writeConversations(folder, 24), ...evaluated },
        epochs: 4,
      })
      const first = await evalsOf(options)
      assert.ok(first.at(-1)! < first[0]! - 0.5, `${first[0]} to ${first.at(-1)}`)

      const second = await evalsOf({ ...options, model: options.output, output: join(folder, 'second'), epochs: 1 })
      assert.ok(Math.abs(second[0]! / first.at(-1)! - 1) < 1e-6, `${first.at(-1)}, then ${second[0]}`)

      const model = await loadModel(options.output)
      try {
        const messages = [{ role: 'user', content: 'Tell me about tea number 3.' }] as const
        const { tokens, finishReason } = await model.generate([...messages], { maxNewTokens: 12 })
        assert.ok(finishReason === 'stop' || tokens.length === 12)
      } finally {
        model.close()
      }
    })
  }
})

/** Losses of the evaluations of a run. */
async function evalsOf(options: TrainerOptions): Promise<number[]> {
  const trainer = new Trainer(options)
  const evals: EvalEvent[] = []
  trainer.on('eval', (event) => evals.push(event))
  await trainer.fit()
  return evals.map(({ loss }) => loss)
}
