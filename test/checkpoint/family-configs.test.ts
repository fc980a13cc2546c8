// Configs as published on the hub, per family: read whole, and what is not supported refused by name.
import assert from 'node:assert/strict'
import { readConfig } from '../../lib/checkpoint/families/index.ts'
import { describeModel } from '../../lib/checkpoint/open.ts'
import { readFamilyCase } from '../parity/family-cases.ts'
import { type Config, rejects, throws } from './fixtures.ts'

const read = (config: Config) => readConfig(config, 'some/config.json')
const kinds = (windows: Int32Array): string => Array.from(windows, (window) => (window === 0 ? 'f' : 's')).join('')

const bookKeeping = {
  torch_dtype: 'bfloat16',
  transformers_version: '4.49.0',
  use_cache: true,
  initializer_range: 0.02,
}

const published: Record<string, Config> = {
  mistral: {
    ...{ architectures: ['MistralForCausalLM'], model_type: 'mistral', bos_token_id: 1, eos_token_id: 2 },
    ...{ hidden_act: 'silu', hidden_size: 4096, intermediate_size: 14336, max_position_embeddings: 32768 },
    ...{ num_attention_heads: 32, num_hidden_layers: 32, num_key_value_heads: 8, rms_norm_eps: 1e-5 },
    ...{ rope_theta: 10000, sliding_window: 4096, tie_word_embeddings: false, vocab_size: 32000 },
  },
  qwen2: {
    ...{ architectures: ['Qwen2ForCausalLM'], model_type: 'qwen2', attention_dropout: 0, hidden_act: 'silu' },
    ...{ hidden_size: 896, intermediate_size: 4864, max_position_embeddings: 32768, max_window_layers: 24 },
    ...{ num_attention_heads: 14, num_hidden_layers: 24, num_key_value_heads: 2, rms_norm_eps: 1e-6 },
    ...{ rope_theta: 1e6, sliding_window: 32768, tie_word_embeddings: true, use_mrope: false },
    ...{ use_sliding_window: false, vocab_size: 151936 },
  },
  qwen3: {
    ...{ architectures: ['Qwen3ForCausalLM'], model_type: 'qwen3', attention_bias: false, attention_dropout: 0 },
    ...{ head_dim: 128, hidden_act: 'silu', hidden_size: 1024, intermediate_size: 3072, max_window_layers: 28 },
    ...{ max_position_embeddings: 40960, num_attention_heads: 16, num_hidden_layers: 28, num_key_value_heads: 8 },
    ...{ rms_norm_eps: 1e-6, rope_scaling: null, rope_theta: 1e6, sliding_window: null, vocab_size: 151936 },
    ...{ tie_word_embeddings: true, use_sliding_window: false },
  },
  gemma2: {
    ...{ architectures: ['Gemma2ForCausalLM'], model_type: 'gemma2', attention_bias: false, attention_dropout: 0 },
    ...{ attn_logit_softcapping: 50, cache_implementation: 'hybrid', final_logit_softcapping: 30, head_dim: 256 },
    ...{ hidden_act: 'gelu_pytorch_tanh', hidden_activation: 'gelu_pytorch_tanh', hidden_size: 2304 },
    ...{ intermediate_size: 9216, max_position_embeddings: 8192, num_attention_heads: 8, num_hidden_layers: 26 },
    ...{ num_key_value_heads: 4, query_pre_attn_scalar: 256, rms_norm_eps: 1e-6, rope_theta: 10000 },
    ...{ sliding_window: 4096, vocab_size: 256000 },
  },
  gemma3: {
    ...{ architectures: ['Gemma3ForCausalLM'], model_type: 'gemma3_text', attention_bias: false, attention_dropout: 0 },
    ...{ attn_logit_softcapping: null, cache_implementation: 'hybrid', eos_token_id: [1, 106], head_dim: 256 },
    ...{ final_logit_softcapping: null, hidden_activation: 'gelu_pytorch_tanh', hidden_size: 1152 },
    ...{ intermediate_size: 6912, max_position_embeddings: 32768, num_attention_heads: 4, num_hidden_layers: 26 },
    ...{ num_key_value_heads: 1, query_pre_attn_scalar: 256, rms_norm_eps: 1e-6, rope_local_base_freq: 10000 },
    ...{ rope_scaling: null, rope_theta: 1e6, sliding_window: 512, sliding_window_pattern: 6, vocab_size: 262144 },
  },
  phi3: {
    ...{ _name_or_path: 'Phi-3-mini-4k-instruct', architectures: ['Phi3ForCausalLM'], model_type: 'phi3' },
    auto_map: { AutoConfig: 'configuration_phi3.Phi3Config', AutoModelForCausalLM: 'modeling_phi3.Phi3ForCausalLM' },
    ...{ attention_bias: false, attention_dropout: 0, embd_pdrop: 0, resid_pdrop: 0, hidden_act: 'silu' },
    ...{ hidden_size: 3072, intermediate_size: 8192, max_position_embeddings: 4096, num_attention_heads: 32 },
    ...{ num_hidden_layers: 32, num_key_value_heads: 32, original_max_position_embeddings: 4096, rms_norm_eps: 1e-5 },
    ...{ rope_scaling: null, rope_theta: 10000, sliding_window: 2047, tie_word_embeddings: false, vocab_size: 32064 },
  },
  // As sparse as it is published: the rest are defaults of the config class.
  gemma3Images: {
    ...{ architectures: ['Gemma3ForConditionalGeneration'], model_type: 'gemma3', mm_tokens_per_image: 256 },
    ...{ boi_token_index: 255999, eoi_token_index: 256000, eos_token_id: [1, 106], image_token_index: 262144 },
    text_config: {
      ...{ hidden_size: 2560, intermediate_size: 10240, model_type: 'gemma3_text', num_hidden_layers: 34 },
      ...{ rope_scaling: { factor: 8, rope_type: 'linear' }, sliding_window: 1024 },
    },
    vision_config: { hidden_size: 1152, image_size: 896, model_type: 'siglip_vision_model', patch_size: 14 },
  },
  olmo2: {
    ...{ architectures: ['Olmo2ForCausalLM'], model_type: 'olmo2', attention_bias: false, attention_dropout: 0 },
    ...{ hidden_act: 'silu', hidden_size: 2048, intermediate_size: 8192, max_position_embeddings: 4096 },
    ...{ num_attention_heads: 16, num_hidden_layers: 16, num_key_value_heads: 16, rms_norm_eps: 1e-6 },
    ...{ rope_scaling: null, rope_theta: 500000, tie_word_embeddings: false, vocab_size: 100352 },
  },
  smollm3: {
    ...{ architectures: ['SmolLM3ForCausalLM'], model_type: 'smollm3', attention_bias: false, attention_dropout: 0 },
    ...{ hidden_act: 'silu', hidden_size: 2048, intermediate_size: 11008, max_position_embeddings: 65536 },
    ...{ mlp_bias: false, no_rope_layer_interval: 4, num_attention_heads: 16, num_hidden_layers: 36 },
    ...{ num_key_value_heads: 4, pretraining_tp: 2, rms_norm_eps: 1e-6, rope_scaling: null, rope_theta: 5e6 },
    ...{ sliding_window: null, tie_word_embeddings: true, use_sliding_window: false, vocab_size: 128256 },
  },
  gpt2: {
    ...{ architectures: ['GPT2LMHeadModel'], model_type: 'gpt2', activation_function: 'gelu_new', attn_pdrop: 0.1 },
    ...{ bos_token_id: 50256, embd_pdrop: 0.1, eos_token_id: 50256, layer_norm_epsilon: 1e-5, n_ctx: 1024 },
    ...{ n_embd: 768, n_head: 12, n_layer: 12, n_positions: 1024, resid_pdrop: 0.1, summary_activation: null },
    ...{ summary_first_dropout: 0.1, summary_proj_to_labels: true, summary_type: 'cls_index' },
    ...{ summary_use_proj: true, task_specific_params: { 'text-generation': { do_sample: true } }, vocab_size: 50257 },
  },
  pythia: {
    ...{ architectures: ['GPTNeoXForCausalLM'], model_type: 'gpt_neox', bos_token_id: 0, eos_token_id: 0 },
    ...{ hidden_act: 'gelu', hidden_size: 768, intermediate_size: 3072, layer_norm_eps: 1e-5 },
    ...{ max_position_embeddings: 2048, num_attention_heads: 12, num_hidden_layers: 12, rotary_emb_base: 10000 },
    ...{ rotary_pct: 0.25, tie_word_embeddings: false, use_parallel_residual: true, vocab_size: 50304 },
  },
  stablelm: {
    ...{ architectures: ['StableLmForCausalLM'], model_type: 'stablelm', attention_dropout: 0, hidden_act: 'silu' },
    ...{ hidden_dropout: 0, hidden_size: 2048, intermediate_size: 5632, layer_norm_eps: 1e-5 },
    ...{ max_position_embeddings: 4096, num_attention_heads: 32, num_hidden_layers: 24, num_key_value_heads: 32 },
    ...{ partial_rotary_factor: 0.25, qk_layernorm: false, rope_scaling: null, rope_theta: 10000 },
    ...{ tie_word_embeddings: false, use_parallel_residual: false, use_qkv_bias: true, vocab_size: 100352 },
  },
  granite: {
    ...{ architectures: ['GraniteForCausalLM'], model_type: 'granite', attention_bias: false, attention_dropout: 0 },
    ...{ attention_multiplier: 0.0078125, embedding_multiplier: 12, hidden_act: 'silu', hidden_size: 4096 },
    ...{ intermediate_size: 12800, logits_scaling: 16, max_position_embeddings: 131072, mlp_bias: false },
    ...{ num_attention_heads: 32, num_hidden_layers: 40, num_key_value_heads: 8, residual_multiplier: 0.22 },
    ...{ rms_norm_eps: 1e-5, rope_scaling: null, rope_theta: 1e7, tie_word_embeddings: true, vocab_size: 49159 },
  },
}

/** Parameters as the model cards count them, in millions, tied ones once. */
const millions: Record<string, number> = {
  ...{ mistral: 7242, qwen2: 494, qwen3: 596, gemma2: 2614, gemma3: 1000, gemma3Images: 3880, phi3: 3821, olmo2: 1485 },
  ...{ smollm3: 3075, gpt2: 124, pythia: 162, stablelm: 1645, granite: 8171 },
}

describe('published configs', () => {
  for (const [name, config] of Object.entries(published)) {
    it(`${name}: nothing in it is unknown, and it has the parameters of the model card`, () => {
      const { family, spec, unknown, dropout } = read({ ...config, ...bookKeeping })
      assert.deepEqual(unknown, [])
      assert.deepEqual(dropout, name === 'gpt2' ? ['attn_pdrop', 'embd_pdrop', 'resid_pdrop'] : [])
      const count = family
        .parameters(spec)
        .reduce((sum, { shape }) => sum + shape.reduce((product, size) => product * size, 1), 0)
      assert.equal(Math.round(count / 1e6), millions[name])
    })
  }

  it('say which layers see a window', () => {
    const windows = (name: string, fields: Config = {}) => read({ ...published[name], ...fields }).spec.layerWindows
    assert.deepEqual(windows('mistral'), new Int32Array(32).fill(4096))
    assert.deepEqual(windows('mistral', { sliding_window: null }), new Int32Array(32))
    // As long as the context: nothing is hidden.
    assert.deepEqual(windows('mistral', { max_position_embeddings: 4096 }), new Int32Array(32))
    assert.equal(kinds(windows('qwen2', { use_sliding_window: true, sliding_window: 512 })), 'f'.repeat(24))
    const late = windows('qwen2', { use_sliding_window: true, sliding_window: 512, max_window_layers: 21 })
    assert.equal(kinds(late), `${'f'.repeat(21)}sss`)
    assert.equal(kinds(windows('gemma2')), 'sf'.repeat(13))
    assert.equal(kinds(windows('gemma3')), `${'sssssf'.repeat(4)}ss`)
    assert.deepEqual(windows('phi3'), new Int32Array(32).fill(2047))
  })

  it('say which layers have which rope', () => {
    const ropes = (name: string) => read(published[name]!).spec.layerRopes
    assert.deepEqual(ropes('gemma3').slice(0, 7), Int32Array.of(0, 0, 0, 0, 0, 1, 0))
    assert.deepEqual(ropes('smollm3').slice(0, 8), Int32Array.of(0, 0, 0, -1, 0, 0, 0, -1))
    assert.deepEqual(ropes('gpt2'), new Int32Array(12).fill(-1))
    assert.deepEqual([read(published.gpt2!).spec.rotaryDim, read(published.pythia!).spec.rotaryDim], [0, 16])
  })
})

describe('a config of a family', () => {
  const unsupported: [name: string, fields: Config, pattern: RegExp][] = [
    ['mistral', { layer_types: Array(32).fill('full_attention') }, /layer_types/],
    ['qwen3', { layer_types: Array(28).fill('chunked_attention') }, /layer_types\[0\] = "chunked_attention"/],
    ['gemma2', { use_bidirectional_attention: true }, /use_bidirectional_attention = true/],
    ['gemma2', { hidden_activation: 'mish' }, /hidden_activation = "mish".*Supported: silu/],
    ['gemma3', { attn_logit_softcapping: 50 }, /attn_logit_softcapping = 50/],
    ['gemma3', { rope_parameters: { rope_type: 'default' } }, /rope_parameters\.rope_type/],
    ['gemma3Images', { tie_word_embeddings: false }, /tie_word_embeddings = false.*text_config says otherwise/],
    ['gemma3Images', { text_config: { hidden_size: 2560, clip_qkv: 1 } }, /text_config: clip_qkv = 1/],
    ['phi3', { auto_map: { AutoModelForCausalLM: 'modeling_x.OtherForCausalLM' } }, /auto_map/],
    ['phi3', { lm_head_bias: true }, /lm_head_bias = true/],
    ['olmo2', { clip_qkv: 8 }, /clip_qkv = 8/],
    ['gpt2', { scale_attn_by_inverse_layer_idx: true }, /scale_attn_by_inverse_layer_idx/],
    ['gpt2', { add_cross_attention: true }, /add_cross_attention/],
    ['pythia', { head_dim: 32 }, /head_dim = 32/],
    ['pythia', { num_key_value_heads: 4 }, /num_key_value_heads = 4/],
    ['pythia', { partial_rotary_factor: 0.5 }, /partial_rotary_factor/],
    ['stablelm', { use_parallel_residual: true }, /use_parallel_residual = true/],
    ['stablelm', { qk_layernorm: true }, /qk_layernorm = true/],
    ['granite', { sliding_window: 5 }, /sliding_window = 5/],
  ]
  for (const [name, fields, pattern] of unsupported) {
    it(`${name} is refused with ${JSON.stringify(fields).slice(0, 80)}`, () => {
      throws(() => read({ ...published[name], ...fields }), 'ERR_UNSUPPORTED_CONFIG', /^some\/config\.json: /, pattern)
    })
  }

  const invalid: [name: string, fields: Config, pattern: RegExp][] = [
    ['qwen3', { layer_types: ['full_attention'] }, /layer_types must be a list of 28 types/],
    ['gemma2', { sliding_window: null }, /sliding_window must be set: layers slide/],
    ['gemma3', { rope_parameters: { full_attention: 3 } }, /rope_parameters\.full_attention must be an object/],
    ['gemma3Images', { text_config: null }, /text_config must be an object, not nothing/],
    ['smollm3', { no_rope_layers: [1, 0] }, /no_rope_layers must be a list of 0 and 1, one for each of the 36 layers/],
    ['gpt2', { n_head: 7 }, /n_embd must be a multiple of n_head \(7\)/],
    ['granite', { logits_scaling: 0 }, /logits_scaling must be a number over 0/],
    ['phi3', { rope_scaling: { type: 'longrope' } }, /short_factor must be a list of 48 numbers, not nothing/],
    [
      'phi3',
      { rope_scaling: { type: 'longrope', short_factor: Array(48).fill(1), long_factor: [...Array(47).fill(1), 0] } },
      /long_factor\[47\] must be a number over 0, not 0/,
    ],
  ]
  for (const [name, fields, pattern] of invalid) {
    it(`${name} is refused with ${JSON.stringify(fields).slice(0, 80)}`, () => {
      throws(() => read({ ...published[name], ...fields }), 'ERR_INVALID_CONFIG', /^some\/config\.json: /, pattern)
    })
  }

  it('with parts that are kept as they are cannot begin without weights', async () => {
    await rejects(describeModel(published.gemma3Images!), 'ERR_UNSUPPORTED_CONFIG', /gemma3.*not trained here/)
  })

  it('names the rope types that its family computes', () => {
    for (const [name, types] of [
      ['phi3', 'default, longrope'],
      ['olmo2', 'default, linear, dynamic, yarn, longrope, llama3'],
    ] as const) {
      const pattern = new RegExp(`Supported rope types: ${types}\\.`)
      const config = { ...published[name], rope_scaling: { rope_type: 'su', factor: 2 } }
      throws(() => read(config), 'ERR_UNSUPPORTED_ROPE', /has the type "su"/, pattern)
    }
  })

  it('lists tensors under the names of its family', () => {
    for (const name of ['gemma3', 'gpt2', 'gpt-neox', 'phi3', 'olmo2-bias']) {
      const golden = readFamilyCase(name)
      const { family, spec } = read(golden.config)
      const names = new Set(family.parameters(spec).map(({ tensor }) => tensor))
      assert.deepEqual([...names].sort(), Object.keys(golden.tensors))
    }
  })
})
