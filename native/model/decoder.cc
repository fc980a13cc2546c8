#include "model/decoder.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/rng.h"

namespace tunesmith {

namespace {

// Logits are made for as many rows as fit here; fewer, larger chunks read and write the head's gradient less often.
constexpr int64_t kLogitsBytes = int64_t(64) << 20;

}  // namespace

void check_cancelled(const std::atomic<bool>& cancel) {
  if (cancel.load(std::memory_order_relaxed)) throw CodedError("ERR_CANCELLED", "cancelled");
}

Decoder::Decoder(const DecoderSpec& spec, const DecoderOptions& options, Backend& backend, Arena& arena)
    : spec_(spec),
      options_(options),
      backend_(backend),
      compute_(options.compute),
      wide_(wide(options.compute)),
      max_tokens_(round_up(options.limits.tokens, backend.row_bucket())),
      max_rows_(round_up(std::min(options.limits.supervised, options.limits.tokens), backend.row_bucket())) {
  spec_.validate();
  if (!backend.supports(compute_))
    throw CodedError("ERR_UNSUPPORTED_DTYPE",
                     "the " + backend.info().name + " backend does not compute in " + name_of(compute_));
  if (options.cache_tokens < 0 || options.cache_sequences < 1)
    throw CodedError("ERR_INVALID_SPEC", "a key/value cache needs room for at least one sequence");
  if (options.limits.tokens < 1 || options.limits.supervised < 1 || options.limits.sequences < 1)
    throw CodedError("ERR_INVALID_SPEC",
                     "a micro-batch needs room for at least one token, supervised row and conversation");
  // No conversation is longer than what is planned for; a rotary table of 131,072 positions would take 64 MiB.
  spec_.max_positions = std::min(spec_.max_positions, std::max(options.limits.tokens, options.cache_tokens));

  parameters_ = std::make_unique<Parameters>(spec_, compute_, options, backend, arena);
  batch_ = std::make_unique<DeviceBatch>(
      BatchLimits{options.limits.tokens, std::min(options.limits.supervised, options.limits.tokens),
                  options.limits.sequences},
      backend.row_bucket(), compute_, options.training && options.draws(), arena);
  if (const Parameter& table = parameters_->find("embedding.weight"); table.trained() && !table.trained_whole())
    batch_->reserve_trained_tokens(table.trained_first, table.trained_count, arena);

  const size_t layers = size_t(spec_.layers);
  while (first_trained_ < layers && parameters_->lowest_block > mlp_block(int64_t(first_trained_))) first_trained_++;
  const size_t slots = slot_of(layers - 1) + 1;
  saved_.resize(options.training && !options.recompute ? slots : 1);
  for (size_t i = 0; i < saved_.size(); i++) {
    const auto serves = [&](size_t layer) { return saved_.size() == 1 || slot_of(layer) == i; };
    bool inner = false;
    for (size_t layer = 0; layer + 1 < layers; layer++) inner |= serves(layer);
    reserve_layer(arena, saved_[i], serves(layers - 1), inner);
  }
  if (options.training && options.recompute) {
    inputs_.resize(slots);
    for (Tensor& input : inputs_) arena.reserve(MemoryKind::kActivations, input, wide_, max_tokens_, spec_.hidden_size);
  }
  reserve_scratch(arena);
  cache_k_.resize(options.cache_tokens ? layers : 0);
  cache_v_.resize(cache_k_.size());
  for (size_t i = 0; i < cache_k_.size(); i++)
    for (Tensor* cache : {&cache_k_[i], &cache_v_[i]})
      arena.reserve(MemoryKind::kCache, *cache, compute_, options.cache_sequences * options.cache_tokens,
                    spec_.kv_size());
  cached_.resize(size_t(options.cache_sequences));
}

// `last`: the set serves the last layer; `inner`: it serves any other. A shared set serves both.
void Decoder::reserve_layer(Arena& arena, LayerActivations& layer, bool last, bool inner) {
  const auto kind = MemoryKind::kActivations;
  const int64_t hidden = spec_.hidden_size, q = spec_.q_size(), kv = spec_.kv_size();
  const int64_t rows = inner ? max_tokens_ : max_rows_;
  const int64_t statistics = spec_.norm == NormKind::kLayer ? 2 : 1;
  if (!options_.recompute || !options_.training) arena.reserve(kind, layer.x, wide_, max_tokens_, hidden);
  if (spec_.pre_norms()) {
    arena.reserve(kind, layer.attention_statistics, wide_, statistics, max_tokens_);
    arena.reserve(kind, layer.mlp_statistics, wide_, statistics, rows);
  }
  if (spec_.post_norms()) {
    arena.reserve(kind, layer.attention_out, compute_, rows, hidden);
    arena.reserve(kind, layer.mlp_out, compute_, rows, hidden);
  }
  if (inner) arena.reserve(kind, layer.qkv, compute_, rows, q + 2 * kv);
  if (last) {
    arena.reserve(kind, layer.q, compute_, max_rows_, q);
    arena.reserve(kind, layer.kv, compute_, max_tokens_, 2 * kv);
  }
  arena.reserve(kind, layer.attended, compute_, rows, q);
  arena.reserve(kind, layer.lse, wide_, rows, spec_.heads);
  if (!spec_.parallel_residual) {
    arena.reserve(kind, layer.middle, wide_, rows, hidden);
  } else if (last) {
    arena.reserve(kind, layer.middle, wide_, max_rows_, hidden);
  }
  arena.reserve(kind, layer.gate_up, compute_, rows, parameters_->mlp_width());
}

void Decoder::reserve_scratch(Arena& arena) {
  const auto kind = MemoryKind::kScratch;
  const int64_t hidden = spec_.hidden_size, inner = spec_.intermediate_size, q = spec_.q_size(), kv = spec_.kv_size();
  const int64_t bucket = backend_.row_bucket(), t = max_tokens_, r = max_rows_;
  if (!spec_.ropes.empty())
    arena.reserve(kind, rope_tables_, wide_, int64_t(spec_.ropes.size()) * spec_.max_positions, spec_.rotary_dim);
  arena.reserve(kind, norm_, compute_, t, hidden);
  arena.reserve(kind, norm_rows_, compute_, r, hidden);
  arena.reserve(kind, delta_, compute_, t, hidden);
  arena.reserve(kind, act_, compute_, t, inner);
  if (spec_.qk_norm != QkNorm::kNone) arena.reserve(kind, qk_, compute_, t, q + kv);
  if (spec_.parallel_residual) arena.reserve(kind, stream_, wide_, t, hidden);
  if (options_.training) {
    arena.reserve(kind, dx_, wide_, t, hidden);
    arena.reserve(kind, dx_rows_, wide_, r, hidden);
    if (compute_ != wide_) {
      arena.reserve(kind, dx_compute_, compute_, t, hidden);
      arena.reserve(kind, dx_rows_compute_, compute_, r, hidden);
    }
    arena.reserve(kind, dnorm_, compute_, t, hidden);
    arena.reserve(kind, dnorm_rows_, compute_, r, hidden);
    arena.reserve(kind, dact_, compute_, t, inner);
    arena.reserve(kind, dattended_, compute_, t, q);
    arena.reserve(kind, dqkv_, compute_, t, q + 2 * kv);
    arena.reserve(kind, dkv_, compute_, t, 2 * kv);
  }
  arena.reserve(MemoryKind::kActivations, output_, wide_, r, hidden);
  arena.reserve(MemoryKind::kActivations, output_statistics_, wide_, spec_.norm == NormKind::kLayer ? 2 : 1, r);
  arena.reserve(MemoryKind::kActivations, hidden_, compute_, r, hidden);
  arena.reserve(kind, nll_, wide_, 1, r);
  arena.reserve_ints(kind, correct_, r);

  const int64_t fitting = std::max<int64_t>(1, kLogitsBytes / (spec_.vocab_size * int64_t(size_of(wide_))));
  const int64_t chunk = std::min(r, std::max(bucket, fitting / bucket * bucket));
  arena.reserve(MemoryKind::kLogits, logits_, wide_, chunk, spec_.vocab_size);
  // The slope of a soft cap is made of the logits, which must then outlive their gradient.
  if (options_.training && (compute_ != wide_ || spec_.logit_softcap != 0))
    arena.reserve(MemoryKind::kLogits, dlogits_, compute_, chunk, spec_.vocab_size);

  for (const Linear* linear : parameters_->linears()) {
    const Tensor& weight = linear->weight.master;
    const int64_t rows = linear == &parameters_->head ? chunk : t;
    const bool quantized = !linear->weight.quantized.empty();
    const auto need = [&](int64_t n, LinearUse use) {
      const size_t bytes = backend_.linear_scratch_bytes(rows, {n, weight.cols, compute_, use, quantized});
      backend_scratch_bytes_ = std::max(backend_scratch_bytes_, bytes);
    };
    need(weight.rows, options_.training ? LinearUse::kFrozen : LinearUse::kInference);
    for (const TrainedRows& part : linear->trained) need(part.count, LinearUse::kTrained);
  }
  if (!parameters_->adapters().modules.empty()) reserve_adapted(arena);
  // One op at a time: they share it.
  for (size_t layer = 0; layer < size_t(spec_.layers); layer++)
    backend_scratch_bytes_ = std::max(
        backend_scratch_bytes_,
        backend_.attention_scratch_bytes(attention_shape(layer), compute_, spec_.max_positions, options_.training));
  if (backend_scratch_bytes_) arena.reserve(kind, backend_scratch_, backend_scratch_bytes_);
}

void Decoder::attach() {
  parameters_->attach();
  backend_.set_scratch(backend_scratch_, backend_scratch_bytes_);
  upload_rope_tables();
  for (const Tensor& grads : {parameters_->matrix_grads(), parameters_->vector_grads()})
    if (grads) backend_.zero(grads.data, size_t(grads.size()) * size_of(wide_));
}

// The angle is rounded to float32 as Transformers has it, so that long contexts agree to the last bit that matters.
void Decoder::upload_rope_tables() {
  const int64_t half = spec_.rotary_dim / 2;
  std::vector<double> row(size_t(spec_.rotary_dim));
  std::vector<float> narrow(row.size());
  for (size_t table = 0; table < spec_.ropes.size(); table++) {
    const RopeTable& rope = spec_.ropes[table];
    for (int64_t p = 0; p < spec_.max_positions; p++) {
      for (int64_t i = 0; i < half; i++) {
        const double angle = float(p) * float(rope.inverse_frequencies[size_t(i)]);
        row[size_t(i)] = rope.scale * std::cos(angle);
        row[size_t(half + i)] = rope.scale * std::sin(angle);
      }
      const Tensor target = rope_tables_.slice_rows(int64_t(table) * spec_.max_positions + p, 1);
      if (wide_ == DType::kFloat64) {
        backend_.upload(target.data, row.data(), row.size() * sizeof(double));
      } else {
        std::copy(row.begin(), row.end(), narrow.begin());
        backend_.upload(target.data, narrow.data(), narrow.size() * sizeof(float));
      }
    }
  }
}

void Decoder::prepare_weights(bool trained_only) {
  parameters_->check_filled();
  for (const Linear* linear : parameters_->linears())
    if (!trained_only || !linear->trained.empty()) backend_.linear_prepare(linear->weight, linear->use);
  prepare_adapters();
}

void Decoder::initialize(uint64_t seed, double std) {
  constexpr int64_t kChunk = 1 << 16;
  std::vector<double> values;
  for (const Parameter& p : parameters_->all()) {
    if (is_adapter(p.name)) continue;
    const bool one = p.name.ends_with("norm.weight") && !spec_.norm_unit_offset;
    const uint64_t stream = hash_name(p.name);
    for (int64_t first = 0; first < p.value.size(); first += kChunk) {
      const int64_t count = std::min(kChunk, p.value.size() - first);
      values.resize(size_t(count));
      for (int64_t i = 0; i < count; i++)
        values[size_t(i)] = one ? 1 : p.is_vector ? 0 : std * philox_normal(seed, stream, uint64_t(first + i));
      parameters_->write(backend_, p.name, first, DType::kFloat64, values.data(), count);
    }
  }
}

LossSums Decoder::accumulate(const MicroBatch& batch, double weight_sum, bool first,
                             const std::optional<StepRandom>& random, const std::atomic<bool>& cancel) {
  if (!options_.training) throw CodedError("ERR_NOT_TRAINING", "this engine was created without training");
  if (!(weight_sum > 0) || !std::isfinite(weight_sum))
    throw CodedError("ERR_INVALID_BATCH",
                     "the step's weight sum is " + std::to_string(weight_sum) + "; it must be positive");
  if (options_.draws() && !random)
    throw CodedError("ERR_INVALID_ARGUMENT", "dropout and noise need the seed and the number of the step");
  batch_->load(backend_, spec_, batch, false);
  // Everything that adds must start from zero; what one matmul writes whole is overwritten instead.
  if (first) {
    const auto clear = [&](const Tensor& grad) { backend_.zero(grad.data, size_t(grad.size()) * size_of(wide_)); };
    clear(parameters_->vector_grads());
    if (batch_->rows == 0 || !options_.adapters.modules.empty())
      clear(parameters_->matrix_grads());
    else if (!spec_.tied_embeddings && parameters_->embedding_grad)
      clear(parameters_->embedding_grad);
    if (parameters_->position_embedding_grad) clear(parameters_->position_embedding_grad);
  }
  if (batch_->rows == 0) return {0, 0, 0, 0, std::vector<double>(size_t(batch_->sequences), 0.0)};
  // Forgotten however this is left, so that an evaluation after a cancelled step drops nothing.
  struct Guard {
    std::optional<StepRandom>& random;
    ~Guard() { random.reset(); }
  } guard{random_};
  random_ = random;
  forward(cancel);
  LossSums sums = head(true, 1 / weight_sum, first);
  backward(first, cancel);
  backend_.synchronize();
  return sums;
}

LossSums Decoder::evaluate(const MicroBatch& batch, const std::atomic<bool>& cancel) {
  batch_->load(backend_, spec_, batch, false);
  if (batch_->rows == 0) return {0, 0, 0, 0, std::vector<double>(size_t(batch_->sequences), 0.0)};
  forward(cancel);
  return head(false, 0, false);
}

std::vector<float> Decoder::logits(const MicroBatch& batch, const std::atomic<bool>& cancel) {
  batch_->load(backend_, spec_, batch, true);
  forward(cancel);
  std::vector<float> result(size_t(batch_->rows * spec_.vocab_size));
  read_logits(result.data());
  return result;
}

}  // namespace tunesmith
