// The CUDA backend: cuBLASLt for the matmuls, own kernels for everything else. One source file per op, each holding its
// kernels and the Backend methods that launch them; everything is ordered on one stream.
#pragma once

#include <memory>

#include "backend/backend.h"
#include "cuda/launch.h"
#include "cuda/matmul.h"

namespace tunesmith::cuda {

class Staging;
struct Tables;

class CudaBackend final : public Backend {
 public:
  CudaBackend();
  ~CudaBackend() override;

  BackendInfo info() const override;
  bool supports(DType compute) const override;
  // Whole tiles of matmuls and attention.
  int64_t row_bucket() const override { return 128; }

  void* allocate(size_t bytes) override;
  void release(void* memory) noexcept override;
  void upload(void* device, const void* host, size_t bytes) override;
  void download(void* host, const void* device, size_t bytes) override;
  void zero(void* device, size_t bytes) override;
  void synchronize() override;

  size_t linear_prepared_bytes(const LinearShape& shape) const override;
  size_t linear_scratch_bytes(int64_t max_rows, const LinearShape& shape) const override;
  void set_scratch(void* memory, size_t bytes) override;
  size_t unplanned_bytes() const override;
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

  // Nothing beyond what the backend holds anyway.
  size_t attention_scratch_bytes(const AttentionShape&, DType, int64_t, bool) const override { return 0; }
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
  // Memory for partial sums, valid until the next call; of at least this size.
  template <class T>
  T* partials(int64_t count) {
    return static_cast<T*>(partials_of(size_t(count) * sizeof(T)));
  }
  void* partials_of(size_t bytes);
  // Blocks that fill the device twice over: enough to hide what a block waits for, few enough that their partial sums
  // are small.
  int64_t resident_blocks() const { return 2 * multiprocessors_; }
  // sums[N] float32 += (column sums of `rows` rows).
  void add_partials(float* sums, const float* partials, int64_t parts, int64_t width, const float* divisor);
  // The weight as matmuls read it; a quantised one is made in scratch.
  const void* operand(const LinearWeight& weight);
  // [N, K] of `type` from the weight's quantised parts.
  void dequantize(void* out, DType type, const LinearWeight& weight);
  // What is left of the scratch behind the workspace of matmuls, for a weight's operand first.
  struct Room {
    char* data;
    size_t bytes;
  };
  Room room_behind(const LinearWeight& weight) const;
  void run_matmul(const Matmul& matmul, void* d, const void* a, const void* b, const void* bias);

  int multiprocessors_;
  std::string device_name_;
  cudaStream_t stream_ = nullptr;
  std::unique_ptr<Staging> staging_;
  std::unique_ptr<Matmuls> matmuls_;
  void* scratch_ = nullptr;
  size_t scratch_bytes_ = 0;
  const Tables* tables_ = nullptr;  // on the device
  void* partials_ = nullptr;
  size_t partials_bytes_ = 0;
};

}  // namespace tunesmith::cuda
