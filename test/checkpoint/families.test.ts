import assert from 'node:assert/strict'
import { readConfig } from '../../lib/checkpoint/families/index.ts'
import { type Config, throws, tinyConfig } from './fixtures.ts'

const read = (config: Config) => readConfig(config, 'some/config.json')
const withFields = (fields: Config): Config => ({ ...tinyConfig, ...fields })

describe('a Llama config', () => {
  it('becomes a spec', () => {
    const { ropes, ...spec } = read(tinyConfig).spec
    assert.deepEqual(
      ropes.map(({ inverseFrequencies, scale }) => [inverseFrequencies.length, scale]),
      [[3, 1]],
    )
    assert.deepEqual(spec, {
      vocabSize: 17,
      hiddenSize: 12,
      layers: 2,
      heads: 4,
      kvHeads: 2,
      headDim: 6,
      intermediateSize: 20,
      maxPositions: 64,
      norm: 'rms',
      normEpsilon: 1e-5,
      normUnitOffset: false,
      normBias: false,
      blockNorms: 'pre',
      parallelResidual: false,
      qkNorm: 'none',
      attentionBias: true,
      attentionOutputBias: true,
      attentionScale: 6 ** -0.5,
      attentionSoftcap: 0,
      layerWindows: Int32Array.of(0, 0),
      layerRopes: Int32Array.of(0, 0),
      rotaryDim: 6,
      longRopeThreshold: 0,
      mlp: 'gated',
      activation: 'silu',
      mlpBias: true,
      tiedEmbeddings: false,
      headBias: false,
      embeddingScale: 1,
      learnedPositions: 0,
      residualScale: 1,
      logitScale: 1,
      logitSoftcap: 0,
    })
  })

  it('has Transformers’ defaults where fields are absent or null', () => {
    const {
      num_key_value_heads,
      head_dim,
      hidden_act,
      attention_bias,
      mlp_bias,
      tie_word_embeddings,
      rope_theta,
      ...rest
    } = tinyConfig
    const { spec } = read({
      ...rest,
      hidden_size: 16,
      head_dim: null,
      max_position_embeddings: undefined,
      rms_norm_eps: null,
    })
    assert.equal(spec.kvHeads, 4)
    assert.equal(spec.headDim, 4)
    assert.equal(spec.maxPositions, 2048)
    assert.equal(spec.normEpsilon, 1e-6)
    assert.equal(spec.attentionBias || spec.attentionOutputBias || spec.mlpBias || spec.tiedEmbeddings, false)
    assert.deepEqual(spec.ropes, read(withFields({ hidden_size: 16, head_dim: 4, rope_theta: 1e4 })).spec.ropes)
  })

  it('lists its parameters in native names beside the checkpoint’s', () => {
    const { family, spec } = read(tinyConfig)
    const list = family.parameters(spec)
    assert.deepEqual(list[0], { name: 'embedding.weight', tensor: 'model.embed_tokens.weight', shape: [17, 12] })
    assert.deepEqual(list.at(-1), { name: 'head.weight', tensor: 'lm_head.weight', shape: [17, 12] })
    const layer = list
      .filter(({ name }) => name.startsWith('layers.1.'))
      .map(({ name, tensor, shape }) => [name, tensor, shape])
    const from = 'model.layers.1'
    assert.deepEqual(layer, [
      ['layers.1.attention_norm.weight', `${from}.input_layernorm.weight`, [12]],
      ['layers.1.attention.q.weight', `${from}.self_attn.q_proj.weight`, [24, 12]],
      ['layers.1.attention.q.bias', `${from}.self_attn.q_proj.bias`, [24]],
      ['layers.1.attention.k.weight', `${from}.self_attn.k_proj.weight`, [12, 12]],
      ['layers.1.attention.k.bias', `${from}.self_attn.k_proj.bias`, [12]],
      ['layers.1.attention.v.weight', `${from}.self_attn.v_proj.weight`, [12, 12]],
      ['layers.1.attention.v.bias', `${from}.self_attn.v_proj.bias`, [12]],
      ['layers.1.attention.o.weight', `${from}.self_attn.o_proj.weight`, [12, 24]],
      ['layers.1.attention.o.bias', `${from}.self_attn.o_proj.bias`, [12]],
      ['layers.1.mlp_norm.weight', `${from}.post_attention_layernorm.weight`, [12]],
      ['layers.1.mlp.gate.weight', `${from}.mlp.gate_proj.weight`, [20, 12]],
      ['layers.1.mlp.gate.bias', `${from}.mlp.gate_proj.bias`, [20]],
      ['layers.1.mlp.up.weight', `${from}.mlp.up_proj.weight`, [20, 12]],
      ['layers.1.mlp.up.bias', `${from}.mlp.up_proj.bias`, [20]],
      ['layers.1.mlp.down.weight', `${from}.mlp.down_proj.weight`, [12, 20]],
      ['layers.1.mlp.down.bias', `${from}.mlp.down_proj.bias`, [12]],
    ])
    const plain = read(withFields({ attention_bias: false, mlp_bias: false, tie_word_embeddings: true }))
    const names = plain.family.parameters(plain.spec).map(({ name }) => name)
    assert.equal(names.length, 2 + 2 * 9)
    assert.ok(!names.includes('head.weight') && !names.some((name) => name.endsWith('.bias')))
  })

  it('reads the rotary fields of every era alike', () => {
    const llama3 = { factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 32 }
    const forms = [
      { rope_theta: 5e5, rope_scaling: { rope_type: 'llama3', ...llama3 } },
      { rope_theta: 5e5, rope_scaling: { type: 'llama3', ...llama3 } },
      { rope_theta: undefined, rope_parameters: { rope_type: 'llama3', rope_theta: 5e5, ...llama3 } },
      { rope_theta: 1, rope_parameters: { rope_type: 'llama3', rope_theta: 5e5, ...llama3 }, rope_scaling: null },
    ]
    const [first, ...others] = forms.map((form) => read(withFields(form)).spec.ropes)
    for (const other of others) assert.deepEqual(other, first)
    assert.notDeepEqual(first, read(withFields({ rope_theta: 5e5 })).spec.ropes)
  })

  const invalid: [fields: Config, pattern: RegExp][] = [
    [{ hidden_size: '12' }, /hidden_size must be a positive whole number, not "12"/],
    [{ vocab_size: undefined }, /vocab_size must be .*, not nothing/],
    [{ num_hidden_layers: 0 }, /num_hidden_layers/],
    [{ intermediate_size: 1.5 }, /intermediate_size/],
    [{ hidden_size: 14 }, /hidden_size must be a multiple of num_attention_heads \(4\), not 14/],
    [{ num_key_value_heads: 3 }, /num_attention_heads must be a multiple of num_key_value_heads \(3\)/],
    [{ head_dim: 5 }, /head_dim must be even/],
    [{ rms_norm_eps: -1 }, /rms_norm_eps/],
    [{ attention_bias: 1 }, /attention_bias must be true or false/],
    [{ rope_theta: 0 }, /rope_theta/],
    [{ rope_scaling: 'linear' }, /rope_scaling must be an object/],
    [{ rope_scaling: { type: 'linear' } }, /rope_scaling\.factor must be a number over 0, not nothing/],
    [
      { rope_scaling: { type: 'llama3', factor: 2, low_freq_factor: 4, high_freq_factor: 1 } },
      /high_freq_factor must be over/,
    ],
  ]
  for (const [fields, pattern] of invalid) {
    it(`is refused with ${JSON.stringify(fields)}`, () =>
      throws(() => read(withFields(fields)), 'ERR_INVALID_CONFIG', /^some\/config\.json: /, pattern))
  }

  const unsupportedRope: [rope: Config, pattern: RegExp][] = [
    [{ rope_type: 'ntk', factor: 2 }, /the type "ntk"/],
    [{ rope_type: 7 }, /the type 7/],
    [{ rope_type: 'default', mrope_section: [1] }, /the field mrope_section/],
    [{ rope_type: 'default', partial_rotary_factor: 0.5 }, /partial_rotary_factor is 0\.5/],
    [{ full_attention: { rope_type: 'default' } }, /full_attention is an object/],
  ]
  for (const [rope, pattern] of unsupportedRope) {
    it(`is refused with the rotary parameters ${JSON.stringify(rope)}`, () => {
      for (const name of ['rope_scaling', 'rope_parameters']) {
        const body = () => read(withFields({ [name]: rope }))
        throws(
          body,
          'ERR_UNSUPPORTED_ROPE',
          new RegExp(`^some/config\\.json: ${name}`),
          pattern,
          /Supported rope types: default, linear, dynamic, yarn, longrope, llama3\./,
        )
      }
    })
  }

  const unsupported: [fields: Config, pattern: RegExp][] = [
    [{ hidden_act: 'mish' }, /hidden_act = "mish".*Supported: silu/],
    [{ sliding_window: 4096 }, /sliding_window = 4096/],
    [{ pretraining_tp: 2 }, /pretraining_tp = 2.*Set it to 1/],
    [{ partial_rotary_factor: 0.5 }, /partial_rotary_factor/],
    [{ quantization_config: { bits: 4 } }, /quantization_config.*unquantised/],
    [{ layer_types: ['full_attention', 'sliding_attention'] }, /layer_types/],
    [{ embedding_multiplier: 12 }, /embedding_multiplier/],
    [{ num_local_experts: 8 }, /num_local_experts/],
    [{ final_logit_softcapping: 30 }, /final_logit_softcapping/],
    [{ auto_map: { AutoModelForCausalLM: 'modeling_x.X' } }, /auto_map/],
  ]
  for (const [fields, pattern] of unsupported) {
    it(`is refused with ${JSON.stringify(fields)}`, () =>
      throws(() => read(withFields(fields)), 'ERR_UNSUPPORTED_CONFIG', /^some\/config\.json: .*mathematics/, pattern))
  }

  it('takes such fields at values that change nothing, and what says nothing about the model', () => {
    const { unknown } = read(
      withFields({
        ...{
          sliding_window: 4096,
          use_sliding_window: false,
          attention_dropout: 0,
          pretraining_tp: 1,
          quantization_config: null,
        },
        ...{
          layer_types: ['full_attention', 'full_attention'],
          embedding_multiplier: 1,
          resid_pdrop: 0,
          partial_rotary_factor: 1,
        },
        ...{
          use_cache: true,
          transformers_version: '5.0',
          _name_or_path: 'x',
          initializer_range: 0.02,
          pad_token_id: null,
        },
        ...{ auto_map: { AutoTokenizer: 'tokenization_x.X' }, hidden_act: 'swish' },
      }),
    )
    assert.deepEqual(unknown, [])
  })

  it('names fields of dropout, which is for options to say', () => {
    assert.deepEqual(read(withFields({ attention_dropout: 0.1, resid_pdrop: 0, hidden_dropout: 0.2 })).dropout, [
      'attention_dropout',
      'hidden_dropout',
    ])
  })

  it('names fields that are not known, at the top and in the rotary parameters', () => {
    const fields = { mystery: 1, nothing: null, rope_scaling: { type: 'linear', factor: 2, beta_fast: 1 } }
    assert.deepEqual(read(withFields(fields)).unknown, ['mystery', 'rope_scaling.beta_fast'])
  })
})

describe('the architecture of a config', () => {
  const code = 'ERR_UNSUPPORTED_ARCHITECTURE'
  it('is found by either name', () => {
    const { architectures, model_type, ...rest } = tinyConfig
    assert.equal(read({ ...rest, architectures }).family.name, 'llama')
    assert.equal(read({ ...rest, model_type }).family.name, 'llama')
    assert.equal(read({ ...rest, model_type, architectures: [] }).family.name, 'llama')
  })
  for (const fields of [
    { architectures: ['GPTJForCausalLM'], model_type: 'gptj' },
    { architectures: ['LlamaForSequenceClassification'] },
    { architectures: ['LlamaForCausalLM'], model_type: 'mistral' },
    { architectures: undefined, model_type: 'mamba' },
    { architectures: undefined, model_type: undefined },
  ]) {
    it(`is refused by its name: ${JSON.stringify(fields)}`, () => {
      const name = fields.architectures?.[0] ?? fields.model_type ?? 'neither "architectures" nor'
      throws(
        () => read(withFields(fields)),
        code,
        /^some\/config\.json/,
        new RegExp(name),
        /Supported: LlamaForCausalLM \(model_type "llama"\), MistralForCausalLM .*"gpt2".*"gpt_neox"/,
      )
    })
  }
})
