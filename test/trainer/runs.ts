/** Small runs from random weights, with the tokenizer that ships in assets: everything a Trainer needs, made here. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { FitResult, TrainerOptions } from '../../lib/index.ts'
import { Trainer } from '../../lib/index.ts'

export const tokenizer = fileURLToPath(new URL('../../assets/base', import.meta.url))

export const tinyConfig = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  vocab_size: 2048,
  hidden_size: 32,
  intermediate_size: 48,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 128,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  hidden_act: 'silu',
  tie_word_embeddings: true,
}

/** A temporary folder that afterEach removes. */
export function scratchFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'tunesmith-test-'))
  scratch.push(folder)
  return folder
}

const scratch: string[] = []

after(() => {
  for (const folder of scratch) rmSync(folder, { recursive: true, force: true })
})

/** Conversations of uneven lengths, one a line. */
export function writeConversations(folder: string, count: number, name = 'train.jsonl'): string {
  const path = join(folder, name)
  const things = ['a ball', 'the moon', 'seven small ducks and one very large pond', 'tea']
  const rows = Array.from({ length: count }, (_, i) => ({
    messages: [
      { role: 'user', content: `Tell me about ${things[i % things.length]} number ${i}.` },
      { role: 'assistant', content: `${'It is there. '.repeat(1 + (i % 5))}That was number ${i}.` },
    ],
  }))
  writeFileSync(path, `${rows.map((row) => JSON.stringify(row)).join('\n')}\n`)
  return path
}

export function tinyOptions(folder: string, changes: Partial<TrainerOptions> = {}): TrainerOptions {
  return {
    model: { config: tinyConfig, tokenizer, init: 'random' },
    data: { train: writeConversations(folder, 24) },
    output: join(folder, 'out'),
    epochs: 2,
    batchSize: 8,
    microBatchTokens: 128,
    learningRate: 1e-2,
    precision: 'float32',
    device: 'cpu',
    threads: 2,
    ...changes,
  }
}

export function train(options: TrainerOptions): Promise<FitResult> {
  return new Trainer(options).fit()
}
