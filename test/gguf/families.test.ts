import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { exportGguf } from '../../lib/checkpoint/gguf/export.ts'
import { describeModel } from '../../lib/checkpoint/open.ts'
import { saveCheckpoint } from '../../lib/checkpoint/save.ts'
import type { NativeEngine } from '../../lib/native/addon.ts'
import { temporaryFolder } from '../checkpoint/fixtures.ts'
import { failure } from '../data/helpers.ts'
import { hashedEngine } from '../parity/hashed.ts'
import { describeLlamaCpp, LlamaCpp } from './llama-cpp.ts'

type Config = Record<string, unknown>

const vocabSize = 60
const base = {
  vocab_size: vocabSize,
  hidden_size: 32,
  intermediate_size: 64,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 64,
  eos_token_id: 1,
  tie_word_embeddings: false,
}
const gpt2 = { vocab_size: vocabSize, n_embd: 32, n_head: 4, n_layer: 2, n_positions: 64, n_inner: 64, eos_token_id: 1 }
const gemma = { head_dim: 16, query_pre_attn_scalar: 16, sliding_window: 6, hidden_activation: 'gelu_pytorch_tanh' }
const yarn = { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 16 }
const factors = (first: number) => Array.from({ length: 4 }, (_, index) => first + index / 2)

/** Models that llama.cpp computes as Transformers does. The engine's own logits stand for Transformers' (test/parity). */
const same: [string, Config][] = [
  ['llama', { model_type: 'llama', rope_theta: 5000 }],
  [
    'llama, tied, with biases',
    { model_type: 'llama', tie_word_embeddings: true, attention_bias: true, mlp_bias: true },
  ],
  ['llama, linear', { model_type: 'llama', rope_scaling: { type: 'linear', factor: 2 } }],
  [
    'llama, llama3',
    {
      model_type: 'llama',
      rope_scaling: {
        rope_type: 'llama3',
        factor: 8,
        low_freq_factor: 1,
        high_freq_factor: 4,
        original_max_position_embeddings: 16,
      },
    },
  ],
  ['llama, yarn', { model_type: 'llama', rope_scaling: yarn }],
  ['mistral', { model_type: 'mistral', head_dim: 16, sliding_window: null }],
  ['qwen2', { model_type: 'qwen2', tie_word_embeddings: true }],
  ['qwen2, yarn', { model_type: 'qwen2', rope_scaling: yarn }],
  ['qwen3', { model_type: 'qwen3', head_dim: 16 }],
  ['qwen3, yarn', { model_type: 'qwen3', head_dim: 16, rope_scaling: { ...yarn, beta_fast: 4, beta_slow: 1 } }],
  ['olmo2', { model_type: 'olmo2', tie_word_embeddings: true }],
  ['smollm3', { model_type: 'smollm3', num_hidden_layers: 5, no_rope_layer_interval: 4, tie_word_embeddings: true }],
  [
    'granite',
    {
      model_type: 'granite',
      embedding_multiplier: 3,
      attention_multiplier: 0.2,
      residual_multiplier: 0.4,
      logits_scaling: 2.5,
    },
  ],
  [
    'gemma2',
    {
      ...gemma,
      model_type: 'gemma2',
      attn_logit_softcapping: 5,
      final_logit_softcapping: 4,
      tie_word_embeddings: true,
    },
  ],
  [
    'gemma3',
    {
      ...gemma,
      model_type: 'gemma3_text',
      num_hidden_layers: 7,
      tie_word_embeddings: true,
      rope_theta: 1e6,
      rope_local_base_freq: 1e4,
    },
  ],
  ['phi3', { model_type: 'phi3', sliding_window: null }],
  [
    'phi3, longrope',
    {
      model_type: 'phi3',
      sliding_window: null,
      max_position_embeddings: 256,
      original_max_position_embeddings: 256,
      rope_scaling: { type: 'longrope', short_factor: factors(1), long_factor: factors(2) },
    },
  ],
  ['gpt2', { model_type: 'gpt2' }],
  ['gpt_neox', { model_type: 'gpt_neox', hidden_act: 'gelu_fast', rotary_pct: 0.25, num_key_value_heads: undefined }],
  [
    'gpt_neox, sequential',
    {
      model_type: 'gpt_neox',
      hidden_act: 'gelu_fast',
      use_parallel_residual: false,
      num_key_value_heads: undefined,
      tie_word_embeddings: true,
    },
  ],
  ['stablelm', { model_type: 'stablelm', use_qkv_bias: true, partial_rotary_factor: 0.25, num_key_value_heads: 4 }],
]

/** Models that it would compute otherwise. */
const refused: [string, Config, string][] = [
  ['another scale', { model_type: 'gemma3_text', head_dim: 16, query_pre_attn_scalar: 9 }, 'headDim^-0.5'],
  ['other windows', { ...gemma, model_type: 'gemma2', layer_types: ['full_attention', 'sliding_attention'] }, 'window'],
  ['other layers without rope', { model_type: 'smollm3', no_rope_layer_interval: 2 }, 'every fourth layer'],
  ['another activation', { model_type: 'gpt2', activation_function: 'relu' }, 'activation gelu_tanh'],
  ['biases', { model_type: 'qwen3', head_dim: 16, attention_bias: true }, 'no biases on q, k and v'],
  ['a rotary embedding', { model_type: 'olmo2', rope_scaling: yarn }, 'of type yarn'],
]

describeLlamaCpp('families in llama.cpp', () => {
  const folder = temporaryFolder()
  let running: LlamaCpp | undefined
  let engine: NativeEngine | undefined
  afterEach(() => {
    running?.close()
    engine?.close()
    running = engine = undefined
  })

  /** A random model of this config in a folder. */
  const make = async (changes: Config): Promise<string> => {
    const config = JSON.parse(
      JSON.stringify(changes.model_type === 'gpt2' ? { ...gpt2, ...changes } : { ...base, ...changes }),
    )
    engine = await hashedEngine(config, {
      ...{ backend: 'reference', compute: 'float32', threads: 1, training: false, optimizer: 'sgd' },
      ...{ recompute: false, maxTokens: 64, maxSupervised: 64, maxSequences: 1, cacheTokens: 0 },
    })
    const tokenizerFolder = join(folder(), 'tokenizer')
    writeTokenizer(tokenizerFolder)
    const model = join(folder(), 'model')
    await saveCheckpoint({
      folder: model,
      model: await describeModel(config),
      engine,
      tokenizerFolder,
      stopTokenIds: [1],
    })
    return model
  }
  const file = () => join(folder(), 'model.gguf')

  for (const [name, config] of same) {
    it(`expects the tokens that ${name} does`, async () => {
      const model = await make(config)
      const { warnings } = await exportGguf({ model, file: file(), type: 'f32', modelfile: false })
      if (!name.includes('longrope')) assert.deepEqual(warnings, [])
      else assert.match(warnings[0]!.message, /long rotary factors where its context is over 256/)
      running = new LlamaCpp(file(), 64)
      const tokens = Array.from({ length: 24 }, (_, index) => 2 + ((index * 37) % (vocabSize - 2)))
      const logits = await engine!.logits({
        tokens: Int32Array.from(tokens),
        positions: Int32Array.from(tokens.keys()),
        cuSeqlens: Int32Array.of(0, tokens.length),
        targets: new Int32Array(tokens.length),
        weights: new Float32Array(tokens.length).fill(1),
      })
      const next = await running.next(tokens)
      let largest = 0
      for (const [position, { probabilities }] of next.entries())
        for (const [token, expected] of softmax(
          logits.subarray(position * vocabSize, (position + 1) * vocabSize),
        ).entries())
          largest = Math.max(largest, Math.abs(expected - probabilities[token]!))
      // llama.cpp looks GELU up in a table of half precision.
      assert.ok(largest < (/gpt|gemma/.test(name) ? 3e-3 : 5e-4), `probabilities differ by ${largest}`)
    })
  }

  for (const [name, config, reason] of refused) {
    it(`are refused for ${name}`, async () => {
      const exported = exportGguf({ model: await make(config), file: file(), modelfile: false })
      await assert.rejects(exported, failure('ERR_GGUF_UNSUPPORTED', reason))
    })
  }

  it('end their context at a window that llama.cpp does not have, and say so', async () => {
    const model = await make({ model_type: 'mistral', sliding_window: 16 })
    const { warnings } = await exportGguf({ model, file: file(), modelfile: false })
    assert.match(
      warnings[0]!.message,
      /no sliding window for llama; the exported context ends at the window, 16 tokens/,
    )
    running = new LlamaCpp(file())
    assert.equal((await running.introduction).context, 16)
  })
})

function softmax(logits: Float32Array): number[] {
  const most = Math.max(...logits)
  const exponentials = Array.from(logits, (logit) => Math.exp(logit - most))
  const sum = exponentials.reduce((total, value) => total + value, 0)
  return exponentials.map((value) => value / sum)
}

/** One character for each id, cut as GPT-2 does. */
function writeTokenizer(folder: string): void {
  mkdirSync(folder)
  const vocab = Object.fromEntries(Array.from({ length: vocabSize }, (_, id) => [String.fromCharCode(0x21 + id), id]))
  const added = {
    id: 1,
    content: '"',
    special: true,
    normalized: false,
    single_word: false,
    lstrip: false,
    rstrip: false,
  }
  const tokenizer = {
    version: '1.0',
    added_tokens: [added],
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    post_processor: null,
    model: { type: 'BPE', vocab, merges: [] },
  }
  writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(tokenizer))
  writeFileSync(join(folder, 'tokenizer_config.json'), JSON.stringify({ eos_token: '"' }))
}
