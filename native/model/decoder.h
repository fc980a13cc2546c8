// The decoder: forward and hand-written backward over one packed micro-batch, and decoding with a key/value cache.
//
//   x₀ = embedding[tokens]
//   per layer:  x' = x + o(attention(rope(qkv(norm(x)))));  x'' = x' + down(act(gate(norm(x'))) · up(norm(x')))
//   loss over the rows that carry it: cross-entropy of head(norm(x_last))
//
// That is a Llama; DecoderSpec says what else there is. Norms may stand behind a block instead of before it, or in both
// places (norms.cc), q and k may have norms of their own (attention_block.cc), the MLP may have no gate (mlp_block.cc),
// and with a parallel residual both blocks read x: x'' = x + attention(norm(x)) + mlp(norm(x)).
//
// The residual stream is kept in `wide`, everything that a matmul reads in `compute`. The last layer projects keys and
// values of all rows, but queries, attention output and MLP of the R supervised rows only: nothing after them is
// needed.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <vector>

#include "backend/backend.h"
#include "core/arena.h"
#include "model/batch.h"
#include "model/parameters.h"
#include "model/spec.h"

namespace tunesmith {

// What a training step does at random, beside the dropout of adapters.
struct RandomOptions {
  double neftune_alpha = 0;                          // arXiv 2310.05914
  double embedding_dropout = 0;                      // of the embeddings, positions included
  std::pair<double, double> residual_dropout{0, 0};  // of what blocks add, in the first and in the last layer

  bool any() const {
    return neftune_alpha > 0 || embedding_dropout > 0 || residual_dropout.first > 0 || residual_dropout.second > 0;
  }
};

enum class Block : uint8_t { kAttention, kMlp };

struct DecoderOptions : TrainingOptions {
  DType compute = DType::kFloat32;
  RandomOptions random;
  Objective objective;     // of training; evaluation is cross-entropy
  bool recompute = false;  // keep only each layer's input, run its forward again in backward
  BatchLimits limits;
  int64_t cache_tokens = 0;     // key/value cache positions of each sequence; 0 = no decoding
  int64_t cache_sequences = 1;  // how many sequences are cached beside each other

  bool draws() const { return adapters.dropout > 0 || random.any(); }
};

// What every random choice of an optimizer step is keyed by, beside the place it is made for.
struct StepRandom {
  uint64_t seed;
  uint64_t step;
};

// Tokens that continue one sequence of the key/value cache.
struct CacheSpan {
  int64_t slot = 0;  // of the sequence, below cache_sequences
  int64_t position = 0;
  std::vector<int32_t> tokens;
};

struct LossSums {
  double loss = 0;                   // Σ weight · loss: of a training step the objective, else nll
  double weight = 0;                 // Σ weight
  int64_t supervised = 0;            // rows with weight > 0
  int64_t correct = 0;               // of those, target is the most likely token
  std::vector<double> per_sequence;  // [B] the same of each conversation
  std::vector<double> nll = {};      // [supervised] of each such row, in their order; of evaluate() only
};

// What forward keeps of one layer for its backward. Rows are T, in the last layer R except for x and kv. Statistics are
// those of the norm's op: [1, T] for RMSNorm, [2, T] for LayerNorm.
struct LayerActivations {
  Tensor x;                     // [T, H] wide: layer input
  Tensor attention_statistics;  // wide
  Tensor qkv;                   // [T, (Hq + 2 Hkv) D] compute; q and k rotated, or with qk-norm as projected
  Tensor q, kv;                 // last layer: [R, Hq D] and [T, 2 Hkv D] compute
  Tensor attended;              // [T, Hq D] compute
  Tensor lse;                   // [T, Hq] wide
  Tensor attention_out;         // [T, H] compute: the block's projection, where a norm stands behind it
  Tensor middle;                // [T, H] wide: what the MLP's norm reads, the stream between attention and MLP; with a
                                // parallel residual that is x, of which the last layer keeps its rows here
  Tensor mlp_statistics;        // wide
  Tensor gate_up;               // [T, 2 I] compute; [T, I] without gates
  Tensor mlp_out;               // [T, H] compute: as attention_out
};

class Decoder {
 public:
  // Reserves everything in `arena`; nothing is touched before arena.bind() and attach().
  Decoder(const DecoderSpec& spec, const DecoderOptions& options, Backend& backend, Arena& arena);
  Decoder(const Decoder&) = delete;

  void attach();  // after the arena is bound: views, rotary table, zeroed state
  // After loading, and after each optimizer step, which changes only what trains.
  void prepare_weights(bool trained_only = false);
  void initialize(uint64_t seed, double std);  // all but the adapters
  // As PEFT: A uniform with a variance of 1 / (3 K), B zero, magnitudes the norms of the rows of W.
  void initialize_adapters(uint64_t seed);
  // From the largest singular values of the weights, which keep the rest.
  void initialize_pissa(const std::atomic<bool>& cancel);
  // Writes the adapters into the weights (in `wide`) and takes them out of the computation.
  void merge_adapters();

  // Forward and backward. Gradients are those of Σ weight · nll / weight_sum; `first` overwrites, else they add up.
  // `random` is what dropout draws from.
  LossSums accumulate(const MicroBatch& batch, double weight_sum, bool first, const std::optional<StepRandom>& random,
                      const std::atomic<bool>& cancel);
  LossSums evaluate(const MicroBatch& batch, const std::atomic<bool>& cancel);
  // [T, V] float32 logits of every row.
  std::vector<float> logits(const MicroBatch& batch, const std::atomic<bool>& cancel);
  // Writes tokens to the cache, each sequence from its `position` on; [B, V] float32 logits after the last of each.
  std::vector<float> extend(const std::vector<CacheSpan>& sequences, const std::atomic<bool>& cancel);

  Parameters& parameters() { return *parameters_; }
  const DecoderSpec& spec() const { return spec_; }
  const DecoderOptions& options() const { return options_; }

 private:
  // Activations of a layer: its own set where backward needs it, else one that layers share.
  LayerActivations& activations(size_t layer) { return saved_[saved_.size() > 1 ? slot_of(layer) : 0]; }
  // Backward ends at the first trained layer: those below it share slot 0, the others have one each.
  size_t slot_of(size_t layer) const {
    return layer < first_trained_ ? 0 : layer - first_trained_ + (first_trained_ > 0);
  }
  // [T, H] wide: where the input of a layer is kept.
  Tensor layer_input(size_t layer);
  bool is_last(size_t layer) const { return layer + 1 == size_t(spec_.layers); }
  int64_t tokens() const { return batch_->padded_tokens; }
  int64_t rows() const { return batch_->padded_rows; }

  void reserve_layer(Arena& arena, LayerActivations& layer, bool last, bool inner);
  void reserve_scratch(Arena& arena);
  void upload_rope_tables();

  // forward.cc. What a block adds is left in delta_ and joins the residual stream in the next norm.
  void forward(const std::atomic<bool>& cancel);
  void forward_layer(size_t layer, bool again);
  void forward_linear(Tensor y, Tensor x, const Linear& linear);
  // backward.cc
  void backward_embedding(Tensor dx);
  void backward(bool first, const std::atomic<bool>& cancel);
  void backward_linear(Tensor dx, Tensor dy, Tensor x, Linear& linear, bool first);
  // attention_block.cc
  AttentionShape attention_shape(size_t layer) const;
  void rotate(size_t layer, Tensor x, int32_t heads, const int32_t* positions, bool inverse);
  Tensor normalise_and_rotate(size_t layer, Tensor x, Tensor room, int32_t heads, const Norm& norm,
                              const int32_t* positions, bool again);
  void backward_normalise_and_rotate(size_t layer, Tensor dx, Tensor x, int32_t heads, const Norm& norm,
                                     const int32_t* positions);
  void rotated_qk(size_t layer, Tensor qkv, Tensor& q, Tensor& k, bool again);
  void rotated_last_qk(size_t layer, Tensor& q, Tensor& k, bool again);
  void forward_attention(size_t layer, Tensor norm, bool again);
  void forward_last_attention(size_t layer, Tensor norm);
  void backward_attention_output(size_t layer, Tensor dx, Tensor dx_compute, bool first);
  void backward_attention(size_t layer, bool first);
  void backward_last_attention(size_t layer, bool first);
  // adapted.cc
  void reserve_adapted(Arena& arena);
  void prepare_adapters();
  Tensor adapter_input(Tensor x, const LinearAdapter& adapter);
  DropoutMask dropout_mask(const LinearAdapter& adapter) const;
  void project_down(Tensor x, const LinearAdapter& adapter);
  Tensor scaled_down(int64_t rows, const AdapterSlice& slice) const;
  void forward_adapted(Tensor y, Tensor x, const Linear& linear);
  void backward_adapted(Tensor dx, Tensor dy, Tensor x, Linear& linear);
  void backward_magnitudes(Tensor dy, Tensor in, const Linear& linear);
  // mlp_block.cc
  Tensor mlp_input(size_t layer, int64_t rows);
  void forward_mlp(size_t layer, int64_t rows, Tensor residual, bool again);
  void backward_mlp(size_t layer, Tensor dx, Tensor dx_compute, bool first);
  // norms.cc
  Tensor forward_norm(Tensor out, Tensor y, Tensor statistics, Tensor residual, Tensor delta, const Norm& norm);
  Tensor apply_norm(Tensor y, Tensor x, Tensor statistics, const Norm& norm);
  void backward_norm(Tensor dx, Tensor dx_compute, Tensor dy, Tensor x, Tensor statistics, const Norm& norm);
  void finish_block(size_t layer, Block block, Tensor delta, Tensor projected, const Norm& norm);
  Tensor backward_finish(size_t layer, Block block, Tensor dy, Tensor projected, const Norm& norm);
  double norm_offset() const { return spec_.norm_unit_offset ? 1 : 0; }
  // The stream behind a layer's attention, to which the MLP's delta will be added.
  Tensor stream(size_t layer, int64_t rows);
  // random.cc
  uint64_t random_key(uint64_t purpose) const;
  bool drops(double probability) const;
  void disturb_embeddings(Tensor x);
  void drop_embeddings(Tensor x);
  double residual_dropout(size_t layer) const;
  DropoutMask residual_mask(size_t layer, Block block) const;
  // head.cc
  Tensor logits_of(int64_t first, int64_t count);
  void read_logits(float* target);
  LossSums head(bool training, double scale, bool first);
  // cache.cc
  void remember(size_t layer, Tensor& k, Tensor& v);
  void check_spans(const std::vector<CacheSpan>& sequences) const;
  DecodingSpan decoding_span(const CacheSpan& sequence);
  void decode(std::vector<DecodingSpan> spans, const std::atomic<bool>& cancel);

  DecoderSpec spec_;
  DecoderOptions options_;
  Backend& backend_;
  DType compute_, wide_;
  int64_t max_tokens_, max_rows_;  // rounded up to the backend's bucket

  std::unique_ptr<Parameters> parameters_;
  std::unique_ptr<DeviceBatch> batch_;
  size_t first_trained_ = 0;  // layers that backward reaches start here; all of them are below it where none does
  std::vector<LayerActivations> saved_;
  std::vector<Tensor> inputs_;  // with recompute: [T, H] wide per slot
  Tensor rope_tables_;          // [tables · P, rotary_dim] wide, one after the other

  // Scratch, valid within one layer.
  Tensor norm_;       // [T, H] compute: normalised input of a matmul
  Tensor delta_;      // [T, H] compute: what a block adds to the residual stream
  Tensor act_;        // [T, I] compute: what the MLP's activation makes
  Tensor norm_rows_;  // [R, H] compute: rows of norm_ that carry loss, last layer
  Tensor qk_;         // [T, (Hq + Hkv) D] compute: q and k normalised and rotated, where they have norms
  Tensor stream_;     // [T, H] wide: the stream behind the attention, with a parallel residual
  // Backward only.
  Tensor dx_, dx_compute_;            // [T, H] wide and its rounded copy: gradient of the residual stream
  Tensor dx_rows_, dx_rows_compute_;  // [R, H] the same after the last layer's keys and values
  Tensor dnorm_, dnorm_rows_;         // [T, H] and, last layer, [R, H] compute
  Tensor dact_;                       // [T, I] compute
  Tensor dattended_;                  // [T, Hq D] compute
  Tensor dqkv_;                       // [T, (Hq + 2 Hkv) D] compute; last layer: dq in its first rows
  Tensor dkv_;                        // [T, 2 Hkv D] compute, last layer
  // Adapters.
  Tensor adapter_in_;                          // [T, K] compute: dropped x, and what A adds to dx
  Tensor adapter_out_;                         // [T, N] compute: B · h, and scaled dy
  Tensor down_, down_scaled_, down_gradient_;  // [T, R] compute: h = x · Aᵀ; s · h, slice by slice; dh
  std::optional<StepRandom> random_;           // while a step is computed
  bool merged_ = false;
  // Head.
  Tensor output_;               // [R, H] wide: residual stream after the last layer
  Tensor output_statistics_;    // [1 or 2, R] wide
  Tensor hidden_;               // [R, H] compute
  Tensor logits_;               // [C, V] wide
  Tensor dlogits_;              // [C, V] compute; empty where it overwrites the logits
  Tensor nll_;                  // [R] wide
  int32_t* correct_ = nullptr;  // [R]

  std::vector<Tensor> cache_k_, cache_v_;  // per layer [cache_sequences · cache_tokens, Hkv D] compute
  std::vector<DecodingSpan> decoding_;     // while decoding: where the new keys and values go
  // Where the rotary table depends on the conversation's length: what each sequence holds, and of which table its keys
  // are.
  struct CachedSequence {
    std::vector<int32_t> tokens;
    std::optional<bool> is_long;  // absent while the keys are made anew
  };
  std::vector<CachedSequence> cached_;
  void* backend_scratch_ = nullptr;
  size_t backend_scratch_bytes_ = 0;
};

// Throws ERR_CANCELLED when the flag is up; called between layers.
void check_cancelled(const std::atomic<bool>& cancel);

}  // namespace tunesmith
