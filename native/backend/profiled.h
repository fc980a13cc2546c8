// Times every op of another backend, for benchmarks that say where a step's time goes.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"

namespace tunesmith {

struct OpTime {
  std::string op;  // "linear_forward 3072x576", "attention_backward", ...
  int64_t calls;
  double seconds;
};

// Forwards to `inner` and waits for the stream after each op, so that a device's asynchronous work is counted where it
// belongs.
class ProfiledBackend final : public Backend {
 public:
  explicit ProfiledBackend(std::unique_ptr<Backend> inner) : inner_(std::move(inner)) {}

  // Since the last call, longest first.
  std::vector<OpTime> take();

  BackendInfo info() const override { return inner_->info(); }
  bool supports(DType compute) const override { return inner_->supports(compute); }
  int64_t row_bucket() const override { return inner_->row_bucket(); }
  void* allocate(size_t bytes) override { return inner_->allocate(bytes); }
  void release(void* memory) noexcept override { inner_->release(memory); }
  void upload(void* device, const void* host, size_t bytes) override { inner_->upload(device, host, bytes); }
  void download(void* host, const void* device, size_t bytes) override { inner_->download(host, device, bytes); }
  void zero(void* device, size_t bytes) override;
  void synchronize() override { inner_->synchronize(); }
  size_t linear_prepared_bytes(const LinearShape& shape) const override { return inner_->linear_prepared_bytes(shape); }
  size_t linear_scratch_bytes(int64_t max_rows, const LinearShape& shape) const override {
    return inner_->linear_scratch_bytes(max_rows, shape);
  }
  void set_scratch(void* memory, size_t bytes) override { inner_->set_scratch(memory, bytes); }
  size_t unplanned_bytes() const override { return inner_->unplanned_bytes(); }
  void linear_prepare(const LinearWeight& weight, LinearUse use) override;
  void linear_forward(Tensor y, Tensor x, const LinearWeight& weight, Tensor bias) override;
  void linear_backward_input(Tensor dx, Tensor dy, const LinearWeight& weight, bool accumulate) override;
  void linear_backward_weight(Tensor dw, Tensor dy, Tensor x, bool accumulate) override;
  void bias_backward(Tensor dbias, Tensor dy) override;
  void embedding_forward(Tensor out, Tensor table, const int32_t* tokens, double scale, bool accumulate) override;
  void embedding_backward(Tensor dtable, Tensor dout, const int32_t* tokens, double scale) override;
  void rmsnorm_forward(Tensor out, Tensor y, Tensor rstd, Tensor residual, Tensor delta, Tensor weight, double offset,
                       double epsilon) override;
  void rmsnorm_apply(Tensor y, Tensor x, Tensor rstd, Tensor weight, double offset) override;
  void rmsnorm_backward(Tensor dx, Tensor dx_compute, Tensor dweight, Tensor dy, Tensor x, Tensor rstd, Tensor weight,
                        double offset) override;
  void group_rmsnorm_forward(Tensor y, Tensor x, int32_t groups, Tensor weight, double offset, double epsilon) override;
  void group_rmsnorm_backward(Tensor dx, Tensor dweight, Tensor dy, Tensor x, int32_t groups, Tensor weight,
                              double offset, double epsilon) override;
  void layernorm_forward(Tensor out, Tensor y, Tensor statistics, Tensor residual, Tensor delta, Tensor weight,
                         Tensor bias, double epsilon) override;
  void layernorm_apply(Tensor y, Tensor x, Tensor statistics, Tensor weight, Tensor bias) override;
  void layernorm_backward(Tensor dx, Tensor dx_compute, Tensor dweight, Tensor dbias, Tensor dy, Tensor x,
                          Tensor statistics, Tensor weight) override;
  void residual_add(Tensor out, Tensor out_compute, Tensor residual, Tensor delta) override;
  void rope(Tensor x, int32_t heads, int32_t head_dim, Tensor table, const int32_t* positions, bool inverse) override;
  size_t attention_scratch_bytes(const AttentionShape& shape, DType compute, int64_t longest,
                                 bool training) const override {
    return inner_->attention_scratch_bytes(shape, compute, longest, training);
  }
  void attention_forward(Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, const AttentionBatch& batch,
                         const AttentionShape& shape) override;
  void attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out, Tensor lse, Tensor q, Tensor k,
                          Tensor v, const AttentionBatch& batch, const AttentionShape& shape) override;
  void activation_forward(Tensor out, Tensor in, Activation activation) override;
  void activation_backward(Tensor din, Tensor dout, Tensor in, Activation activation) override;
  void gather_rows(Tensor out, Tensor x, const int32_t* rows) override;
  void scatter_add_rows(Tensor x, Tensor in, const int32_t* rows, int64_t count) override;
  void cast(Tensor out, Tensor in) override;
  void add_scaled(Tensor y, Tensor x, Tensor gain, double scale, double shift) override;
  void scale_columns(Tensor y, Tensor x, Tensor gain, double scale, double shift, Tensor bias) override;
  void column_dots(Tensor out, Tensor a, Tensor b, Tensor divisor) override;
  void lora_norm(Tensor norm, Tensor gain, Tensor magnitude, const LinearWeight& w, int64_t first, Tensor a, Tensor b,
                 double scale) override;
  void lora_merge(Tensor weight, Tensor a, Tensor b, double scale, Tensor gain) override;
  void dropout(Tensor y, Tensor x, const DropoutMask& mask, bool accumulate) override;
  void embedding_noise(Tensor x, const EmbeddingNoise& noise) override;
  void softcap_forward(Tensor x, double cap) override;
  void softcap_backward(Tensor dx, Tensor y, double cap) override;
  void cross_entropy(Tensor logits, Tensor dlogits, Tensor loss, int32_t* correct, const int32_t* targets,
                     Tensor weights, double scale, const Objective& objective) override;
  double sum_squares(Tensor x) override;
  void adamw(Tensor weight, Tensor m, Tensor v, Tensor grad, const AdamWStep& step) override;
  void adamw_8bit(Tensor weight, const Moments8& moments, Tensor grad, const AdamWStep& step) override;
  void lion(Tensor weight, Tensor m, Tensor grad, const LionStep& step) override;
  void adafactor(Tensor weight, Tensor row, Tensor col, Tensor grad, const AdafactorStep& step) override;
  void muon(Tensor weight, Tensor m, Tensor grad, Tensor scratch, const MuonStep& step) override;
  void sgd(Tensor weight, Tensor m, Tensor grad, const SgdStep& step) override;

 private:
  // Runs op and counts its time under `name`, or under name and an [n, k] shape.
  template <class Op>
  auto timed(const char* name, Op op);
  template <class Op>
  void timed(const char* name, int64_t n, int64_t k, Op op);

  std::unique_ptr<Backend> inner_;
  std::map<std::string, OpTime> times_;
};

}  // namespace tunesmith
