/**
 * Reading a model's config.json with nothing ignored: each field is either used, known to leave the forward pass alone,
 * or reported. A field that changes the mathematics in a way that is not implemented is refused by its name, because a
 * model trained with other mathematics than it is later run with is silently worse.
 */
import { TunesmithError } from '../../errors.ts'
import { describe, type JsonObject } from '../json.ts'

/**
 * Fields of any family that change the forward pass or its gradients, with the values at which they do nothing. Other
 * values are refused. Names come from the configs of decoder models in Transformers; `null`, absence and empty lists are
 * neutral too.
 */
const inert: Record<string, readonly unknown[]> = {
  add_cross_attention: [false],
  alibi: [false],
  attention_bias: [false],
  attention_chunk_size: [],
  attention_multiplier: [1],
  attention_output_bias: [false],
  attention_qkv_bias: [false],
  attention_out_bias: [false],
  attn_logit_softcapping: [],
  clip_qkv: [],
  cross_attention_hidden_size: [],
  dim_model_base: [],
  embedding_multiplier: [1],
  final_logit_softcapping: [],
  full_attn_mod: [1],
  interpolate_factor: [1],
  is_encoder_decoder: [false],
  layer_types: [],
  lm_head_bias: [false],
  logit_scale: [1],
  logits_scaling: [1],
  mlp_bias: [false],
  mlp_only_layers: [],
  no_rope_layers: [],
  num_experts: [0],
  num_local_experts: [0, 1],
  parallel_attn: [false],
  partial_rotary_factor: [1],
  per_layer_config: [],
  pretraining_tp: [0, 1],
  pruned_heads: [],
  qk_layernorm: [false],
  qk_norm: [false],
  qkv_bias: [false],
  quantization_config: [],
  quantization: [],
  query_pre_attn_scalar: [],
  residual_multiplier: [1],
  rope_interleaved: [false],
  scale_depth: [],
  scale_emb: [1],
  sliding_window: [],
  use_bias: [false],
  use_bidirectional_attention: [false],
  use_mrope: [false],
  use_parallel_residual: [false],
  use_post_norm: [false],
  use_qk_norm: [false],
  use_sliding_window: [false],
}

/** What to do about some of them, beyond choosing another model. */
const remedies: Record<string, string> = {
  pretraining_tp: 'Set it to 1: the mathematics is the same, it only slices the matrices.',
  quantization_config: 'Use the unquantised checkpoint, or dequantise it first.',
}

/** Fields that say nothing about the forward pass: book-keeping, generation defaults, run-time switches. */
const harmless = new Set(
  [
    '_name_or_path _commit_hash _attn_implementation _attn_implementation_autoset attn_implementation architectures',
    'model_type transformers_version torch_dtype dtype use_cache initializer_range chunk_size_feed_forward',
    'bos_token_id eos_token_id pad_token_id unk_token_id sep_token_id decoder_start_token_id tokenizer_class',
    'output_attentions output_hidden_states return_dict return_dict_in_generate output_scores torchscript use_bfloat16',
    'is_decoder tie_encoder_decoder problem_type finetuning_task task_specific_params id2label label2id',
    'num_labels prefix max_length min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty',
    'temperature top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size bad_words_ids',
    'num_return_sequences forced_bos_token_id forced_eos_token_id remove_invalid_values begin_suppress_tokens',
    'suppress_tokens exponential_decay_length_penalty tf_legacy_loss max_window_layers gradient_checkpointing',
    'license name_or_path language unsloth_version unsloth_fixed is_llama_config transformers.js_config',
    'encoder_no_repeat_ngram_size _flash_attn_2_enabled cache_implementation _sliding_window_pattern',
    // Of heads for classification.
    'summary_type summary_use_proj summary_activation summary_proj_to_labels summary_first_dropout classifier_dropout',
  ].flatMap((line) => line.split(' ')),
)

/** Reads the fields of one config and remembers which it has seen. */
export class ConfigReader {
  readonly config: JsonObject
  readonly where: string
  /** Fields of dropout that are not 0; filled by `finish`. */
  readonly dropout: string[] = []
  private readonly seen = new Set<string>()

  constructor(config: JsonObject, where: string) {
    this.config = config
    this.where = where
  }

  /** A field's value; `null` counts as absent, as in Transformers. */
  value(name: string): unknown {
    this.seen.add(name)
    return this.config[name] ?? undefined
  }

  positiveInteger(name: string, fallback?: number): number {
    const value = this.value(name) ?? fallback
    if (typeof value === 'number' && Number.isSafeInteger(value) && value > 0) return value
    throw this.invalid(name, value, 'a positive whole number')
  }

  positiveNumber(name: string, fallback?: number): number {
    return this.positive(name, this.value(name) ?? fallback)
  }

  /** As `positiveNumber`, but `null` says that there is none; only absence takes the fallback. */
  positiveNumberOrNone(name: string, fallback: number | undefined): number | undefined {
    const value = this.value(name)
    if (value !== undefined) return this.positive(name, value)
    return Object.hasOwn(this.config, name) ? undefined : fallback
  }

  positiveIntegerOrNone(name: string, fallback: number | undefined): number | undefined {
    const value = this.positiveNumberOrNone(name, fallback)
    return value === undefined ? undefined : this.positiveInteger(name, value)
  }

  /** Checks a value found by its path. */
  positive(path: string, value: unknown): number {
    if (typeof value === 'number' && Number.isFinite(value) && value > 0) return value
    throw this.invalid(path, value, 'a number over 0')
  }

  boolean(name: string, fallback: boolean): boolean {
    const value = this.value(name) ?? fallback
    if (typeof value === 'boolean') return value
    throw this.invalid(name, value, 'true or false')
  }

  invalid(name: string, value: unknown, expected: string): TunesmithError {
    return new TunesmithError(
      'ERR_INVALID_CONFIG',
      `${this.where}: ${name} must be ${expected}, not ${describe(value)}.`,
    )
  }

  unsupported(name: string, value: unknown, remedy?: string): TunesmithError {
    const what = `${this.where}: ${name} = ${describe(value)} changes the model's mathematics in a way that is not supported.`
    return new TunesmithError('ERR_UNSUPPORTED_CONFIG', remedy ? `${what} ${remedy}` : what)
  }

  /**
   * Goes through every field that nothing has read.
   *
   * @returns names of fields whose meaning is not known
   * @throws ERR_UNSUPPORTED_CONFIG for the first that is known to change the forward pass
   */
  finish(): string[] {
    const unknown: string[] = []
    for (const [name, value] of Object.entries(this.config)) {
      if (this.seen.has(name) || value === null || harmless.has(name)) continue
      const neutral = inert[name]
      if (Object.hasOwn(inert, name) && neutral !== undefined) {
        if (!neutral.includes(value) && !this.isNeutral(name, value))
          throw this.unsupported(name, value, remedies[name])
      } else if (/dropout|pdrop/.test(name)) {
        if (value !== 0) this.dropout.push(name)
      } else if (name === 'auto_map') {
        // Transformers runs its own code for the model unless told to trust the repository's.
        if (/"AutoModel/.test(JSON.stringify(value)))
          throw this.unsupported(name, value, 'The model brings its own code.')
      } else {
        unknown.push(name)
      }
    }
    return unknown
  }

  private isNeutral(name: string, value: unknown): boolean {
    if (typeof value === 'object' && Object.keys(value as object).length === 0) return true
    // A window that is switched off, and a list that says what is so anyway.
    if (name === 'sliding_window') return this.config.use_sliding_window === false
    if (name === 'layer_types') return Array.isArray(value) && value.every((type) => type === 'full_attention')
    return false
  }
}
