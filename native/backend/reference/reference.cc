// The reference backend: host memory, one thread, and the ops of ops.h picked by element type.
#include "backend/reference/reference.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "backend/reference/ops.h"
#include "core/error.h"

namespace tunesmith {

namespace {

// Calls run with a value of the compute type.
template <class Run>
auto with_compute(const char* op, DType type, Run&& run) {
  switch (type) {
    case DType::kFloat64:
      return run(double());
    case DType::kFloat32:
      return run(float());
    default:
      throw CodedError("ERR_UNSUPPORTED_DTYPE", std::string(op) +
                                                    ": the reference backend computes in float32 and float64, not in " +
                                                    name_of(type) + "; use precision 'float32' or another device");
  }
}

class ReferenceBackend final : public Backend {
 public:
  BackendInfo info() const override {
    return {.name = "reference", .isa = "plain C++", .library = "none", .threads = 1, .fast_bfloat16 = false};
  }
  bool supports(DType compute) const override { return compute == DType::kFloat32 || compute == DType::kFloat64; }
  int64_t row_bucket() const override { return 1; }

  void* allocate(size_t bytes) override {
    // aligned_alloc wants a multiple of the alignment, and no bytes must still give a pointer of their own.
    const size_t rounded = std::max<size_t>((bytes + 63) / 64 * 64, 64);
    void* memory = rounded < bytes ? nullptr : std::aligned_alloc(64, rounded);
    if (!memory)
      throw CodedError("ERR_OUT_OF_MEMORY", "the reference backend could not allocate " + std::to_string(bytes) +
                                                " bytes; lower microBatchTokens or free memory");
    return memory;
  }
  void release(void* memory) noexcept override { std::free(memory); }
  void upload(void* device, const void* host, size_t bytes) override { copy(device, host, bytes); }
  void download(void* host, const void* device, size_t bytes) override { copy(host, device, bytes); }
  void zero(void* device, size_t bytes) override {
    if (bytes) std::memset(device, 0, bytes);
  }
  void synchronize() override {}

  // Matmuls read the master weights: nothing is prepared and no scratch is needed.
  size_t linear_prepared_bytes(const LinearShape&) const override { return 0; }
  size_t linear_scratch_bytes(int64_t, const LinearShape&) const override { return 0; }
  void set_scratch(void*, size_t) override {}
  size_t unplanned_bytes() const override { return 0; }
  void linear_prepare(const LinearWeight& weight, LinearUse) override {
    with_compute("linear", weight.compute, [](auto) {});
  }

  void linear_forward(Tensor y, Tensor x, const LinearWeight& weight, Tensor bias) override {
    with_compute("linear", x.dtype, [&](auto t) { reference::linear_forward<decltype(t)>(y, x, weight, bias); });
  }
  void linear_backward_input(Tensor dx, Tensor dy, const LinearWeight& weight, bool accumulate) override {
    with_compute("linear", dy.dtype,
                 [&](auto t) { reference::linear_backward_input<decltype(t)>(dx, dy, weight, accumulate); });
  }
  void linear_backward_weight(Tensor dw, Tensor dy, Tensor x, bool accumulate) override {
    with_compute("linear", dy.dtype,
                 [&](auto t) { reference::linear_backward_weight<decltype(t)>(dw, dy, x, accumulate); });
  }
  void bias_backward(Tensor dbias, Tensor dy) override {
    with_compute("bias", dy.dtype, [&](auto t) { reference::bias_backward<decltype(t)>(dbias, dy); });
  }

  void embedding_forward(Tensor out, Tensor table, const int32_t* tokens, double scale, bool accumulate) override {
    with_compute("embedding", out.dtype,
                 [&](auto t) { reference::embedding_forward<decltype(t)>(out, table, tokens, scale, accumulate); });
  }
  void embedding_backward(Tensor dtable, Tensor dout, const int32_t* tokens, double scale) override {
    with_compute("embedding", dout.dtype,
                 [&](auto t) { reference::embedding_backward<decltype(t)>(dtable, dout, tokens, scale); });
  }

  void rmsnorm_forward(Tensor out, Tensor y, Tensor rstd, Tensor residual, Tensor delta, Tensor weight, double offset,
                       double epsilon) override {
    with_compute("rmsnorm", y.dtype, [&](auto t) {
      reference::rmsnorm_forward<decltype(t)>(out, y, rstd, residual, delta, weight, offset, epsilon);
    });
  }
  void rmsnorm_apply(Tensor y, Tensor x, Tensor rstd, Tensor weight, double offset) override {
    with_compute("rmsnorm", y.dtype,
                 [&](auto t) { reference::rmsnorm_apply<decltype(t)>(y, x, rstd, weight, offset); });
  }
  void rmsnorm_backward(Tensor dx, Tensor dx_compute, Tensor dweight, Tensor dy, Tensor x, Tensor rstd, Tensor weight,
                        double offset) override {
    with_compute("rmsnorm", dy.dtype, [&](auto t) {
      reference::rmsnorm_backward<decltype(t)>(dx, dx_compute, dweight, dy, x, rstd, weight, offset);
    });
  }

  void group_rmsnorm_forward(Tensor y, Tensor x, int32_t groups, Tensor weight, double offset,
                             double epsilon) override {
    with_compute("group_rmsnorm", y.dtype,
                 [&](auto t) { reference::group_rmsnorm_forward<decltype(t)>(y, x, groups, weight, offset, epsilon); });
  }
  void group_rmsnorm_backward(Tensor dx, Tensor dweight, Tensor dy, Tensor x, int32_t groups, Tensor weight,
                              double offset, double epsilon) override {
    with_compute("group_rmsnorm", dy.dtype, [&](auto t) {
      reference::group_rmsnorm_backward<decltype(t)>(dx, dweight, dy, x, groups, weight, offset, epsilon);
    });
  }

  void layernorm_forward(Tensor out, Tensor y, Tensor statistics, Tensor residual, Tensor delta, Tensor weight,
                         Tensor bias, double epsilon) override {
    with_compute("layernorm", y.dtype, [&](auto t) {
      reference::layernorm_forward<decltype(t)>(out, y, statistics, residual, delta, weight, bias, epsilon);
    });
  }
  void layernorm_apply(Tensor y, Tensor x, Tensor statistics, Tensor weight, Tensor bias) override {
    with_compute("layernorm", y.dtype,
                 [&](auto t) { reference::layernorm_apply<decltype(t)>(y, x, statistics, weight, bias); });
  }
  void layernorm_backward(Tensor dx, Tensor dx_compute, Tensor dweight, Tensor dbias, Tensor dy, Tensor x,
                          Tensor statistics, Tensor weight) override {
    with_compute("layernorm", dy.dtype, [&](auto t) {
      reference::layernorm_backward<decltype(t)>(dx, dx_compute, dweight, dbias, dy, x, statistics, weight);
    });
  }

  void residual_add(Tensor out, Tensor out_compute, Tensor residual, Tensor delta) override {
    with_compute("residual_add", delta.dtype,
                 [&](auto t) { reference::residual_add<decltype(t)>(out, out_compute, residual, delta); });
  }

  void rope(Tensor x, int32_t heads, int32_t head_dim, Tensor table, const int32_t* positions, bool inverse) override {
    with_compute("rope", x.dtype,
                 [&](auto t) { reference::rope<decltype(t)>(x, heads, head_dim, table, positions, inverse); });
  }

  size_t attention_scratch_bytes(const AttentionShape&, DType, int64_t, bool) const override { return 0; }
  void attention_forward(Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, const AttentionBatch& batch,
                         const AttentionShape& shape) override {
    with_compute("attention", q.dtype,
                 [&](auto t) { reference::attention_forward<decltype(t)>(out, lse, q, k, v, batch, shape); });
  }
  void attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out, Tensor lse, Tensor q, Tensor k,
                          Tensor v, const AttentionBatch& batch, const AttentionShape& shape) override {
    with_compute("attention", q.dtype, [&](auto t) {
      reference::attention_backward<decltype(t)>(dq, dk, dv, dout, out, lse, q, k, v, batch, shape);
    });
  }

  void activation_forward(Tensor out, Tensor in, Activation activation) override {
    with_compute("activation", out.dtype,
                 [&](auto t) { reference::activation_forward<decltype(t)>(out, in, activation); });
  }
  void activation_backward(Tensor din, Tensor dout, Tensor in, Activation activation) override {
    with_compute("activation", dout.dtype,
                 [&](auto t) { reference::activation_backward<decltype(t)>(din, dout, in, activation); });
  }

  void gather_rows(Tensor out, Tensor x, const int32_t* rows) override { reference::gather_rows(out, x, rows); }
  void scatter_add_rows(Tensor x, Tensor in, const int32_t* rows, int64_t count) override {
    with_compute("scatter_add_rows", x.dtype,
                 [&](auto t) { reference::scatter_add_rows<decltype(t)>(x, in, rows, count); });
  }
  void cast(Tensor out, Tensor in) override { reference::cast(out, in); }

  void add_scaled(Tensor y, Tensor x, Tensor gain, double scale, double shift) override {
    with_compute("adapter", x.dtype, [&](auto t) { reference::add_scaled<decltype(t)>(y, x, gain, scale, shift); });
  }
  void scale_columns(Tensor y, Tensor x, Tensor gain, double scale, double shift, Tensor bias) override {
    with_compute("adapter", x.dtype,
                 [&](auto t) { reference::scale_columns<decltype(t)>(y, x, gain, scale, shift, bias); });
  }
  void column_dots(Tensor out, Tensor a, Tensor b, Tensor divisor) override {
    with_compute("adapter", a.dtype, [&](auto t) { reference::column_dots<decltype(t)>(out, a, b, divisor); });
  }
  void lora_norm(Tensor norm, Tensor gain, Tensor magnitude, const LinearWeight& w, int64_t first, Tensor a, Tensor b,
                 double scale) override {
    with_compute("adapter", w.master.dtype,
                 [&](auto t) { reference::lora_norm<decltype(t)>(norm, gain, magnitude, w, first, a, b, scale); });
  }
  void lora_merge(Tensor weight, Tensor a, Tensor b, double scale, Tensor gain) override {
    with_compute("adapter", weight.dtype,
                 [&](auto t) { reference::lora_merge<decltype(t)>(weight, a, b, scale, gain); });
  }
  void dropout(Tensor y, Tensor x, const DropoutMask& mask, bool accumulate) override {
    with_compute("dropout", x.dtype, [&](auto t) { reference::dropout<decltype(t)>(y, x, mask, accumulate); });
  }
  void embedding_noise(Tensor x, const EmbeddingNoise& noise) override {
    with_compute("embedding_noise", x.dtype, [&](auto t) { reference::embedding_noise<decltype(t)>(x, noise); });
  }

  void softcap_forward(Tensor x, double cap) override {
    with_compute("softcap", x.dtype, [&](auto t) { reference::softcap_forward<decltype(t)>(x, cap); });
  }
  void softcap_backward(Tensor dx, Tensor y, double cap) override {
    with_compute("softcap", dx.dtype, [&](auto t) { reference::softcap_backward<decltype(t)>(dx, y, cap); });
  }

  void cross_entropy(Tensor logits, Tensor dlogits, Tensor loss, int32_t* correct, const int32_t* targets,
                     Tensor weights, double scale, const Objective& objective) override {
    with_compute("cross_entropy", dlogits ? dlogits.dtype : logits.dtype, [&](auto t) {
      reference::cross_entropy<decltype(t)>(logits, dlogits, loss, correct, targets, weights, scale, objective);
    });
  }

  double sum_squares(Tensor x) override {
    return with_compute("sum_squares", x.dtype, [&](auto t) { return reference::sum_squares<decltype(t)>(x); });
  }
  void adamw(Tensor weight, Tensor m, Tensor v, Tensor grad, const AdamWStep& step) override {
    with_compute("adamw", weight.dtype, [&](auto t) { reference::adamw<decltype(t)>(weight, m, v, grad, step); });
  }
  void adamw_8bit(Tensor weight, const Moments8& moments, Tensor grad, const AdamWStep& step) override {
    with_compute("adamw_8bit", weight.dtype,
                 [&](auto t) { reference::adamw_8bit<decltype(t)>(weight, moments, grad, step); });
  }
  void lion(Tensor weight, Tensor m, Tensor grad, const LionStep& step) override {
    with_compute("lion", weight.dtype, [&](auto t) { reference::lion<decltype(t)>(weight, m, grad, step); });
  }
  void adafactor(Tensor weight, Tensor row, Tensor col, Tensor grad, const AdafactorStep& step) override {
    with_compute("adafactor", weight.dtype,
                 [&](auto t) { reference::adafactor<decltype(t)>(weight, row, col, grad, step); });
  }
  void muon(Tensor weight, Tensor m, Tensor grad, Tensor scratch, const MuonStep& step) override {
    with_compute("muon", weight.dtype, [&](auto t) { reference::muon<decltype(t)>(weight, m, grad, scratch, step); });
  }
  void sgd(Tensor weight, Tensor m, Tensor grad, const SgdStep& step) override {
    with_compute("sgd", weight.dtype, [&](auto t) { reference::sgd<decltype(t)>(weight, m, grad, step); });
  }

 private:
  static void copy(void* to, const void* from, size_t bytes) {
    if (bytes) std::memcpy(to, from, bytes);
  }
};

}  // namespace

std::unique_ptr<Backend> create_reference_backend() { return std::make_unique<ReferenceBackend>(); }

}  // namespace tunesmith
