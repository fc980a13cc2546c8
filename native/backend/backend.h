// The op interface: everything a device must be able to do for a decoder to be trained on it.
//
// Ops take plain views and are ordered on the backend's one stream. Every op says its shapes and its mathematics here;
// the reference backend is those lines in plain C++. In the comments:
//   compute  the dtype of activations and matmul operands (float64, float32 or bfloat16)
//   wide     float64 when compute is float64, else float32: residual stream, master weights, gradients, statistics
//   T        tokens of a micro-batch, R the rows of it that carry loss
// Index arrays (tokens, positions, offsets, rows) are device memory, int32. Results are deterministic for a given
// thread count: every reduction has a fixed order. Ops trust their arguments; the model checks shapes once, when it is
// built.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/nf4.h"
#include "core/tensor.h"

namespace tunesmith {

// Raised whenever the meaning or order of anything in this file changes.
constexpr int kBackendInterfaceVersion = 8;

// silu = x · sigmoid(x); gelu = x · Φ(x), Φ the normal distribution; gelu_tanh = x/2 · (1 + tanh(√(2/π) (x + 0.044715
// x³))) (arXiv 1606.08415); relu = max(x, 0), with the gradient 0 at 0.
enum class Activation : uint8_t { kSilu, kGelu, kGeluTanh, kRelu };

// What is asked of one weight.
enum class LinearUse : uint8_t {
  kInference,  // forward
  kFrozen,     // forward and input gradient
  kTrained,    // and weight gradient
};

struct LinearShape {
  int64_t n, k;
  DType compute;
  LinearUse use;
  bool quantized = false;
};

// One weight matrix of the model: y[M,N] = x[M,K] · W[N,K]ᵀ.
struct LinearWeight {
  Tensor master;             // [N, K] wide, contiguous; a shape without data where quantized
  DType compute;             // operand dtype of the matmuls
  void* prepared = nullptr;  // prepared_bytes() of the backend's own layout, made by linear_prepare; null when 0 bytes
  // Instead of master: its rows, quantised, from the first part on. Ops read kNf4Values[code] · scale rounded to
  // float32, then to compute, and make them anew for every call, in scratch: no backend keeps a copy.
  std::span<const Nf4Matrix> quantized = {};
};

// Sequences of one packed micro-batch, or of one decoding step. Query row i of sequence b lies in
// [q_offsets[b], q_offsets[b+1]); the keys and values of b are rows [k_offsets[b], k_offsets[b] + k_lengths[b]).
// Query i sees the first q_positions[i] + 1 keys of its own sequence and nothing else.
struct AttentionBatch {
  int32_t sequences;           // B
  const int32_t* q_offsets;    // [B + 1]
  const int32_t* k_offsets;    // [B]
  const int32_t* k_lengths;    // [B]
  const int32_t* q_positions;  // [query rows]
};

struct AttentionShape {
  int32_t heads;       // Hq, a multiple of kv_heads
  int32_t kv_heads;    // Hkv; query head h reads key head h / (heads / kv_heads)
  int32_t head_dim;    // D, even, 8..256
  double scale;        // scores are scale · q·k
  double softcap = 0;  // where not 0, scores are then softcap · tanh(score / softcap)
  int32_t window = 0;  // where not 0, query i sees the last `window` of its keys only
};

// Which elements of an [T, K] activation a dropout keeps. Element (t, c) stays where word c mod 4 of philox(key,
// {c / 4, positions[t], conversations[t], 0}) (core/rng.h) is at least probability · 2³², so that the mask depends on
// the place in the conversation alone, never on the micro-batch.
struct DropoutMask {
  double probability;            // of being dropped, 0 to below 1
  uint64_t key;                  // seed, step and which activation, as one number
  const int32_t* positions;      // [T] index within the conversation
  const int32_t* conversations;  // [T] number of the conversation in its step
};

// The loss of one row; by default its cross-entropy.
//   (1 - label_smoothing) · nll + label_smoothing · (lse - mean(logits)) + z_loss · lse²
// With dft (arXiv 2508.05629) p[target] · nll instead, its p[target] a constant to the gradient.
struct Objective {
  double label_smoothing = 0;  // as in torch.nn.functional.cross_entropy
  double z_loss = 0;           // arXiv 2204.02311, section 5
  bool dft = false;
};

// Uniform noise on the embeddings of whole conversations.
struct EmbeddingNoise {
  double alpha;
  uint64_t key;                  // seed, step and purpose, as one number
  const int32_t* conversations;  // [T] number of the conversation in its step
  int32_t sequences;             // B
  const int32_t* offsets;        // [B + 1] first row of each
};

struct AdamWStep {
  double learning_rate;
  double beta1, beta2;
  double epsilon;
  double weight_decay;  // decoupled: w -= learning_rate · weight_decay · w, before the update
  double correction1;   // 1 - beta1^step
  double correction2;   // 1 - beta2^step
  double grad_scale;    // multiplies the gradient as it is read (clipping)
};

// First and second moments of AdamW in 8 bits (core/dynamic_code.h): signed codes of m, unsigned codes of v, and the
// largest magnitude of every block of kDynamicBlock values, the last of which may be shorter. All zero at the start.
struct Moments8 {
  uint8_t* m = nullptr;
  float* m_absmax = nullptr;
  uint8_t* v = nullptr;
  float* v_absmax = nullptr;
};

struct LionStep {
  double learning_rate;
  double beta1, beta2;
  double weight_decay;  // decoupled
  double grad_scale;
};

struct AdafactorStep {
  double learning_rate;
  double beta2;         // 1 - step^-0.8
  double weight_decay;  // decoupled
  double grad_scale;
};

struct MuonStep {
  double learning_rate;
  double momentum;
  double weight_decay;  // decoupled
  double grad_scale;
};

struct SgdStep {
  double learning_rate;
  double momentum;
  double weight_decay;  // part of the gradient, as in torch.optim.SGD
  double grad_scale;
};

struct BackendInfo {
  std::string name;     // "reference", "cpu", ...
  std::string isa;      // what the matmuls and the vector code run on, in words
  std::string library;  // e.g. "oneDNN 2.6.3"
  int threads = 1;
  bool fast_bfloat16 = false;  // bfloat16 matmuls are faster than float32 ones on this machine
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual BackendInfo info() const = 0;
  virtual bool supports(DType compute) const = 0;
  // Rows of T and R are rounded up to a multiple of this so that primitives are reused; filler rows belong to no
  // sequence.
  virtual int64_t row_bucket() const = 0;

  // ---- memory -------------------------------------------------------------------------------------------------------
  virtual void* allocate(size_t bytes) = 0;  // 64-byte aligned; throws ERR_OUT_OF_MEMORY
  virtual void release(void* memory) noexcept = 0;
  virtual void upload(void* device, const void* host, size_t bytes) = 0;
  virtual void download(void* host, const void* device, size_t bytes) = 0;
  virtual void zero(void* device, size_t bytes) = 0;
  virtual void synchronize() = 0;

  // ---- linear -------------------------------------------------------------------------------------------------------
  // Operands may be strided; contiguous ones are what every backend is fast at.
  // Bytes of LinearWeight::prepared.
  virtual size_t linear_prepared_bytes(const LinearShape& shape) const = 0;
  // Scratch the linear ops below need at once, for any M up to max_rows; the model allocates it in its arena and hands
  // it over once through set_scratch().
  virtual size_t linear_scratch_bytes(int64_t max_rows, const LinearShape& shape) const = 0;
  virtual void set_scratch(void* memory, size_t bytes) = 0;
  // Bytes of working memory that ops have taken beyond it: 0 where the plan was right.
  virtual size_t unplanned_bytes() const = 0;
  // Reads master, writes prepared. Called after loading and after every optimizer step.
  virtual void linear_prepare(const LinearWeight& weight, LinearUse use) = 0;
  // y[M,N] (compute or wide) = x[M,K] (compute) · Wᵀ + bias; bias [N] wide or empty.
  virtual void linear_forward(Tensor y, Tensor x, const LinearWeight& weight, Tensor bias) = 0;
  // dx[M,K] (compute or wide) = dy[M,N] (compute) · W, or += with accumulate (accumulate: dx wide only).
  virtual void linear_backward_input(Tensor dx, Tensor dy, const LinearWeight& weight, bool accumulate) = 0;
  // dw[N,K] (wide) = dy[M,N]ᵀ · x[M,K], or += with accumulate.
  virtual void linear_backward_weight(Tensor dw, Tensor dy, Tensor x, bool accumulate) = 0;
  // dbias[N] (wide) += column sums of dy[M,N] (compute).
  virtual void bias_backward(Tensor dbias, Tensor dy) = 0;

  // ---- embedding ----------------------------------------------------------------------------------------------------
  // out[T,H] (wide) = scale · table[tokens[t]] (wide), or += with accumulate.
  virtual void embedding_forward(Tensor out, Tensor table, const int32_t* tokens, double scale, bool accumulate) = 0;
  // dtable[tokens[t]] (wide) += scale · dout[t] (wide), in order of t.
  virtual void embedding_backward(Tensor dtable, Tensor dout, const int32_t* tokens, double scale) = 0;

  // ---- RMSNorm with fused residual ----------------------------------------------------------------------------------
  // x = residual + delta;  out = x;  rstd = 1/sqrt(mean(x²) + epsilon);  y = x · rstd · (offset + weight).
  // residual, out [T,H] wide (out may be residual); delta [T,H] compute or empty (x = residual, out not written);
  // y [T,H] compute; rstd [T] wide; weight [H] wide; offset is 0, or 1 for weights that are kept as their distance from
  // 1. The normalised value is rounded once, after the weight.
  virtual void rmsnorm_forward(Tensor out, Tensor y, Tensor rstd, Tensor residual, Tensor delta, Tensor weight,
                               double offset, double epsilon) = 0;
  // y = x · rstd · (offset + weight) again, from the saved x and rstd.
  virtual void rmsnorm_apply(Tensor y, Tensor x, Tensor rstd, Tensor weight, double offset) = 0;
  // With g = dy · (offset + weight): dx[T,H] (wide) += rstd · (g - x · rstd² · mean(g · x)); dweight[H] (wide) +=
  // Σ_t dy · x · rstd, unless empty. dx_compute [T,H] (compute) = the updated dx, unless empty.
  virtual void rmsnorm_backward(Tensor dx, Tensor dx_compute, Tensor dweight, Tensor dy, Tensor x, Tensor rstd,
                                Tensor weight, double offset) = 0;

  // ---- RMSNorm of groups of columns ---------------------------------------------------------------------------------
  // Of queries and keys per head (groups = heads) or whole (groups = 1), and of what a block adds. x, y [T, groups·D]
  // (compute), y may be x; weight [D] wide, the same for every group. Per row and group: rstd = 1/sqrt(mean(x²) +
  // epsilon), y = x · rstd · (offset + weight).
  virtual void group_rmsnorm_forward(Tensor y, Tensor x, int32_t groups, Tensor weight, double offset,
                                     double epsilon) = 0;
  // With g = dy · (offset + weight) per group: dx (compute) = rstd · (g - x · rstd² · mean(g · x)); dx may be dy.
  // dweight[D] (wide) += Σ over rows and groups of dy · x · rstd, unless empty. rstd is computed again from x.
  virtual void group_rmsnorm_backward(Tensor dx, Tensor dweight, Tensor dy, Tensor x, int32_t groups, Tensor weight,
                                      double offset, double epsilon) = 0;

  // ---- LayerNorm with fused residual (arXiv 1607.06450) -------------------------------------------------------------
  // As rmsnorm, with the mean subtracted and a bias: y = (x - mean) · rstd · weight + bias, rstd = 1/sqrt(mean((x -
  // mean)²) + epsilon). statistics [2,T] wide: mean, rstd. bias [H] wide or empty.
  virtual void layernorm_forward(Tensor out, Tensor y, Tensor statistics, Tensor residual, Tensor delta, Tensor weight,
                                 Tensor bias, double epsilon) = 0;
  virtual void layernorm_apply(Tensor y, Tensor x, Tensor statistics, Tensor weight, Tensor bias) = 0;
  // With x̂ = (x - mean) · rstd and g = dy · weight: dx[T,H] (wide) += rstd · (g - mean(g) - x̂ · mean(g · x̂));
  // dweight[H] (wide) += Σ_t dy · x̂; dbias[H] (wide) += Σ_t dy; dx_compute [T,H] (compute) = the updated dx: each
  // unless empty.
  virtual void layernorm_backward(Tensor dx, Tensor dx_compute, Tensor dweight, Tensor dbias, Tensor dy, Tensor x,
                                  Tensor statistics, Tensor weight) = 0;

  // ---- residual stream ----------------------------------------------------------------------------------------------
  // out[T,H] (wide) = residual (wide) + delta (compute); out may be residual. out_compute [T,H] (compute) = out, unless
  // empty.
  virtual void residual_add(Tensor out, Tensor out_compute, Tensor residual, Tensor delta) = 0;

  // ---- rotary position embedding ------------------------------------------------------------------------------------
  // x[T, heads·head_dim] (compute), in place. table[P, rotary_dim] wide, rotary_dim ≤ head_dim, holds cos (first half)
  // and sin (second half) of each position, times a factor where the model has one. Per head, with halves (a, b) of its
  // first rotary_dim elements: a' = a·cos - b·sin, b' = b·cos + a·sin; the others stay. inverse negates sin: the
  // transpose, which is the gradient.
  virtual void rope(Tensor x, int32_t heads, int32_t head_dim, Tensor table, const int32_t* positions,
                    bool inverse) = 0;

  // ---- attention ----------------------------------------------------------------------------------------------------
  // Scratch of the two ops below, as linear_scratch_bytes, for sequences of up to `longest` keys; of the first alone
  // without `training`.
  virtual size_t attention_scratch_bytes(const AttentionShape& shape, DType compute, int64_t longest,
                                         bool training) const = 0;
  // out[Tq, Hq·D] (compute) = softmax(scores) v per sequence and head, scores as in AttentionShape; lse[Tq, Hq] (wide)
  // = log Σ exp of the scores. q [Tq, Hq·D], k and v [Tk, Hkv·D] (compute) may be column slices of one buffer. Rows of
  // out and lse beyond q_offsets[B] are set to zero. Never holds a Tq×Tk matrix.
  virtual void attention_forward(Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, const AttentionBatch& batch,
                                 const AttentionShape& shape) = 0;
  // dq, dk, dv (compute) from dout; overwritten, rows that belong to no sequence become zero. dq, dk and dv may be
  // column slices of one buffer, but overlap none of the inputs.
  virtual void attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out, Tensor lse, Tensor q,
                                  Tensor k, Tensor v, const AttentionBatch& batch, const AttentionShape& shape) = 0;

  // ---- activation of the MLP ----------------------------------------------------------------------------------------
  // Gated (arXiv 2002.05202), in[T,2I] = [gate | up] (compute): out[T,I] = act(gate) · up. Plain, in[T,I]: out =
  // act(in).
  virtual void activation_forward(Tensor out, Tensor in, Activation activation) = 0;
  // din from dout[T,I] and in, of the shape of in; din may be in.
  virtual void activation_backward(Tensor din, Tensor dout, Tensor in, Activation activation) = 0;

  // ---- rows ---------------------------------------------------------------------------------------------------------
  // out[r] = x[rows[r]]; same dtype, any width.
  virtual void gather_rows(Tensor out, Tensor x, const int32_t* rows) = 0;
  // x[rows[r]] += in[r] for r < count (rows distinct); same dtype.
  virtual void scatter_add_rows(Tensor x, Tensor in, const int32_t* rows, int64_t count) = 0;
  // out = in, converting between any two float dtypes.
  virtual void cast(Tensor out, Tensor in) = 0;

  // ---- low-rank adapters --------------------------------------------------------------------------------------------
  // y[T,N] += x[T,N] · (scale · gain[n] + shift); y and x compute, gain [N] wide or empty: 1.
  virtual void add_scaled(Tensor y, Tensor x, Tensor gain, double scale, double shift) = 0;
  // y[T,N] = x[T,N] · (scale · gain[n] + shift) + bias[n]; bias [N] wide or empty, y may be x; x and y both
  // compute or both wide, else as above.
  virtual void scale_columns(Tensor y, Tensor x, Tensor gain, double scale, double shift, Tensor bias) = 0;
  // out[N] (wide) += Σ_t a[t,n] · b[t,n] / divisor[n]; a, b [T,N] compute, divisor [N] wide.
  virtual void column_dots(Tensor out, Tensor a, Tensor b, Tensor divisor) = 0;
  // norm[N] (wide) = ‖w[n] + scale · Σ_r b[n,r] · a[r]‖₂ over the N rows of w[.,K] from `first` on, a[R,K], b[N,R]; and
  // gain[N] (wide) = magnitude[n] / norm[n], unless gain is empty. norm may be magnitude where gain is empty.
  virtual void lora_norm(Tensor norm, Tensor gain, Tensor magnitude, const LinearWeight& w, int64_t first, Tensor a,
                         Tensor b, double scale) = 0;
  // w[n] = gain[n] · (w[n] + scale · Σ_r b[n,r] · a[r]); shapes as above, gain [N] wide, or empty: 1.
  virtual void lora_merge(Tensor weight, Tensor a, Tensor b, double scale, Tensor gain) = 0;
  // y[T,K] = x[T,K] / (1 - probability) where the mask keeps, else 0; or y += that with accumulate. Both compute, or
  // both wide; y may be x without accumulate.
  virtual void dropout(Tensor y, Tensor x, const DropoutMask& mask, bool accumulate) = 0;
  // NEFTune (arXiv 2310.05914): x[t,h] (wide) += alpha / sqrt(L · H) · u for every row t of a sequence of L rows, u in
  // [-1, 1): word h mod 4 of philox(key, {h / 4, t - first row of the sequence, conversations[t], 0}), its highest bit
  // turned, as a signed number · 2⁻³¹.
  virtual void embedding_noise(Tensor x, const EmbeddingNoise& noise) = 0;

  // ---- soft cap (Gemma 2, arXiv 2408.00118) -------------------------------------------------------------------------
  // x (wide) = cap · tanh(x / cap), in place.
  virtual void softcap_forward(Tensor x, double cap) = 0;
  // dx (compute or wide) *= 1 - (y / cap)², in place, from the capped y (wide).
  virtual void softcap_backward(Tensor dx, Tensor y, double cap) = 0;

  // ---- loss ---------------------------------------------------------------------------------------------------------
  // Per row r of logits[R,V] (wide): loss[r] (wide) as the objective says, of p = softmax(logits), nll = -log p[target]
  // and lse = log Σ exp(logits); correct[r] = 1 where the target is the (first) largest logit, else 0; dlogits[r]
  // (compute) = weights[r] · scale · d loss / d logits, unless empty. weights [R] wide. dlogits may share the storage
  // of logits (same data pointer; its row stride in bytes not larger).
  virtual void cross_entropy(Tensor logits, Tensor dlogits, Tensor loss, int32_t* correct, const int32_t* targets,
                             Tensor weights, double scale, const Objective& objective) = 0;

  // ---- optimizer ----------------------------------------------------------------------------------------------------
  // Σ x² in double, over a contiguous wide tensor; waits for the stream.
  virtual double sum_squares(Tensor x) = 0;
  // Decoupled AdamW (arXiv 1711.05101) over contiguous wide tensors of equal size:
  //   g = grad · grad_scale; m = β1 m + (1-β1) g; v = β2 v + (1-β2) g²;
  //   w = w - lr·wd·w - lr · (m / correction1) / (sqrt(v / correction2) + epsilon).
  virtual void adamw(Tensor weight, Tensor m, Tensor v, Tensor grad, const AdamWStep& step) = 0;
  // AdamW with moments in 8 bits (arXiv 2110.02861), step by step as bitsandbytes has it, so that the codes are the
  // same: moments of wide type from their codes, updated as above; each block's new absmax; the weight; new codes.
  //   w = w - lr · (sqrt(correction2) / correction1) · m / (sqrt(v) + sqrt(correction2) · epsilon); w = w - lr·wd·w.
  // Nothing is contracted: every product and sum is rounded.
  virtual void adamw_8bit(Tensor weight, const Moments8& moments, Tensor grad, const AdamWStep& step) = 0;
  // Lion (arXiv 2302.06675) over contiguous wide tensors of equal size, sign(0) = 0:
  //   g = grad · grad_scale; w = w - lr·wd·w - lr · sign(β1 m + (1-β1) g); m = β2 m + (1-β2) g.
  virtual void lion(Tensor weight, Tensor m, Tensor grad, const LionStep& step) = 0;
  // Adafactor (arXiv 1804.04235) as Transformers has it with a given learning rate, without first moment and parameter
  // scaling. One contiguous wide matrix [N, K] with its factored second moment row [N], col [K]; or a vector [K] with
  // `row` empty and its second moment in col.  g = grad · grad_scale; s = g² + 1e-30;
  //   matrix: row = β2 row + (1-β2) mean_k s; col = β2 col + (1-β2) mean_n s; u = g / sqrt(row · col / mean(row))
  //   vector: col = β2 col + (1-β2) s; u = g / sqrt(col)
  //   w = w - lr·wd·w - lr · u / max(1, rms(u)).
  virtual void adafactor(Tensor weight, Tensor row, Tensor col, Tensor grad, const AdafactorStep& step) = 0;
  // Muon (Jordan et al. 2024) for one contiguous wide matrix [N, K], the update scaled to the size of AdamW's (arXiv
  // 2502.16982), as torch.optim.Muon has it with adjust_lr_fn='match_rms_adamw', but in wide type throughout:
  //   g = grad · grad_scale; m = μ m + (1-μ) g; u = μ m + (1-μ) g; x = u / max(‖u‖, 1e-7)
  //   5 times: x = 3.4445 x - 4.7750 (x xᵀ) x + 2.0315 (x xᵀ)² x
  //   w = w - lr·wd·w - lr · 0.2 · sqrt(max(N, K)) · x.
  // scratch: muon_scratch_size(N, K) wide elements.
  virtual void muon(Tensor weight, Tensor m, Tensor grad, Tensor scratch, const MuonStep& step) = 0;
  // d = grad · grad_scale + wd · w; with m: m = μ m + d, w = w - lr · m; with m empty: w = w - lr · d.
  virtual void sgd(Tensor weight, Tensor m, Tensor grad, const SgdStep& step) = 0;
};

// Two copies of the matrix and two of the smaller of its Gram matrices.
constexpr int64_t muon_scratch_size(int64_t n, int64_t k) { return 2 * n * k + 2 * (n < k ? n * n : k * k); }

// The one symbol a backend library exports. `threads` 0 means the number of cores this process may use. Throws
// CodedError.
using BackendFactory = Backend* (*)(int interface_version, int threads);
constexpr const char* kBackendFactoryName = "tunesmith_create_backend";

}  // namespace tunesmith
