/**
 * Trains the base model of assets/base from random weights, with this project's own trainer.
 *
 *     npx tsx scripts/base/prepare-corpus.ts --out runs/base-corpus
 *     npx tsx scripts/base/pretrain.ts --corpus runs/base-corpus --output runs/base --install assets/base
 *
 * `--install` copies the weights and their configuration there once training has ended.
 */
import { copyFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { showProgress } from '../../lib/cli/progress.ts'
import { Trainer } from '../../lib/index.ts'

/** 2,422,848 parameters: 4.8 MB in bfloat16. */
const config = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  vocab_size: 2048,
  hidden_size: 192,
  intermediate_size: 512,
  num_hidden_layers: 5,
  num_attention_heads: 6,
  num_key_value_heads: 3,
  head_dim: 32,
  hidden_act: 'silu',
  max_position_embeddings: 512,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  attention_bias: false,
  mlp_bias: false,
  tie_word_embeddings: true,
  initializer_range: 0.04,
  bos_token_id: 0,
  eos_token_id: 0,
  torch_dtype: 'bfloat16',
}

const { values } = parseArgs({
  options: {
    corpus: { type: 'string', default: 'runs/base-corpus' },
    output: { type: 'string', default: 'runs/base' },
    install: { type: 'string' },
    threads: { type: 'string', default: '0' },
    'max-steps': { type: 'string' },
  },
})

const threads = Number(values.threads)
const trainer = new Trainer({
  model: { config, tokenizer: 'assets/base', init: 'random' },
  data: { train: join(values.corpus, 'train.jsonl'), eval: join(values.corpus, 'eval.jsonl'), format: 'text' },
  output: values.output,
  trainOn: 'all',
  // The rows' order is part of the recipe: books fade out, stories come last.
  shuffle: false,
  epochs: 1,
  batchTokens: 8192,
  learningRate: 3e-3,
  schedule: 'cosine',
  warmupRatio: 0.03,
  minLearningRate: 3e-5,
  betas: [0.9, 0.95],
  weightDecay: 0.1,
  evalEvery: '0.2epoch',
  // Costs little at this size, and leaves the result free of the rounding of a lower precision.
  precision: 'float32',
  outputDtype: 'bfloat16',
  seed: 1,
  ...(threads > 0 && { threads }),
  ...(values['max-steps'] !== undefined && { maxSteps: Number(values['max-steps']) }),
})
const close = showProgress(trainer, { stdout: process.stdout, stderr: process.stderr }, false)
const result = await trainer.fit().finally(close)
console.log(`${result.totalTokens} tokens in ${Math.round(result.seconds)} s`)
for (const { step, loss, tokenAccuracy } of result.history.evals) console.log({ step, loss, tokenAccuracy })

if (values.install !== undefined) {
  for (const name of ['model.safetensors', 'config.json', 'generation_config.json']) {
    copyFileSync(join(result.output, name), join(values.install, name))
  }
}
