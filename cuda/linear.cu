// Linear layers on cuBLASLt. A row-major matrix is a column-major one transposed, so y = x · Wᵀ is asked for as
// yᵀ[N,M] = W · xᵀ, and every result is written where it belongs without a copy. bfloat16 weights are a copy of the
// float32 master, renewed once per optimizer step; both directions read the same one.
#include <algorithm>

#include "core/error.h"
#include "cuda/backend.h"
#include "cuda/columns.h"
#include "cuda/kernel.h"

namespace tunesmith::cuda {

namespace {

// Rows of a bfloat16 result with a bias are made in float32 first, so that there is one rounding (cuBLASLt adds a bias
// only of the result's own type). So much memory at a time.
constexpr size_t kWideRows = size_t(32) << 20;

constexpr size_t whole_rows(size_t bytes) { return (bytes + 255) / 256 * 256; }

size_t operand_bytes(const LinearWeight& weight) {
  if (weight.quantized.empty()) return 0;
  return whole_rows(size_t(weight.master.rows * weight.master.cols) * size_of(weight.compute));
}

}  // namespace

size_t CudaBackend::linear_prepared_bytes(const LinearShape& shape) const {
  return shape.compute == DType::kBFloat16 && !shape.quantized ? size_t(shape.n * shape.k) * sizeof(BFloat16) : 0;
}

size_t CudaBackend::linear_scratch_bytes(int64_t max_rows, const LinearShape& shape) const {
  size_t bytes = Matmuls::workspace_bytes();
  if (shape.quantized) bytes += whole_rows(size_t(shape.n * shape.k) * size_of(shape.compute));
  const size_t row = size_t(shape.n) * sizeof(float);
  if (shape.compute == DType::kBFloat16) bytes += std::max(row, std::min(size_t(max_rows) * row, kWideRows));
  return bytes;
}

void CudaBackend::set_scratch(void* memory, size_t bytes) { scratch_ = memory, scratch_bytes_ = bytes; }

void CudaBackend::linear_prepare(const LinearWeight& weight, LinearUse) {
  if (weight.compute != DType::kBFloat16 || !weight.quantized.empty()) return;
  cast(matrix(weight.prepared, DType::kBFloat16, weight.master.rows, weight.master.cols), weight.master);
}

CudaBackend::Room CudaBackend::room_behind(const LinearWeight& weight) const {
  const size_t used = Matmuls::workspace_bytes() + operand_bytes(weight);
  if (used > scratch_bytes_)
    throw CodedError("ERR_INVALID_ARGUMENT", "linear: the scratch is smaller than linear_scratch_bytes()");
  return {static_cast<char*>(scratch_) + used, scratch_bytes_ - used};
}

const void* CudaBackend::operand(const LinearWeight& weight) {
  if (weight.quantized.empty()) return weight.compute == DType::kBFloat16 ? weight.prepared : weight.master.data;
  void* const made = room_behind(weight).data - operand_bytes(weight);
  dequantize(made, weight.compute, weight);
  return made;
}

void CudaBackend::run_matmul(const Matmul& matmul, void* d, const void* a, const void* b, const void* bias) {
  matmuls_->run(matmul, d, a, b, bias, scratch_, std::min(scratch_bytes_, Matmuls::workspace_bytes()));
}

void CudaBackend::linear_forward(Tensor y, Tensor x, const LinearWeight& weight, Tensor bias) {
  if (y.rows == 0) return;
  const int64_t n = weight.master.rows, k = weight.master.cols;
  Matmul matmul{n, y.rows, k, true, false, k, x.stride, y.stride, x.dtype, y.dtype};
  matmul.bias = bool(bias);
  const void* const w = operand(weight);
  if (!bias || y.dtype == DType::kFloat32) return run_matmul(matmul, y.data, w, x.data, bias.data);
  const Room room = room_behind(weight);
  const int64_t rows = int64_t(room.bytes / (size_t(n) * sizeof(float)));
  if (rows == 0) throw CodedError("ERR_INVALID_ARGUMENT", "linear: the scratch is smaller than linear_scratch_bytes()");
  for (int64_t first = 0; first < y.rows; first += rows) {
    const int64_t count = std::min(rows, y.rows - first);
    const Tensor wide_rows = matrix(room.data, DType::kFloat32, count, n);
    matmul.n = count, matmul.ldd = n, matmul.result = DType::kFloat32;
    run_matmul(matmul, wide_rows.data, w, x.slice_rows(first, count).data, bias.data);
    cast(y.slice_rows(first, count), wide_rows);
  }
}

// dxᵀ[K,M] = Wᵀ · dyᵀ.
void CudaBackend::linear_backward_input(Tensor dx, Tensor dy, const LinearWeight& weight, bool accumulate) {
  if (dx.rows == 0) return;
  const int64_t n = weight.master.rows, k = weight.master.cols;
  Matmul matmul{k, dx.rows, n, false, false, k, dy.stride, dx.stride, dy.dtype, dx.dtype};
  matmul.beta = accumulate ? 1.0f : 0.0f;
  run_matmul(matmul, dx.data, operand(weight), dy.data, nullptr);
}

// dwᵀ[K,N] = xᵀ · dy.
void CudaBackend::linear_backward_weight(Tensor dw, Tensor dy, Tensor x, bool accumulate) {
  if (dy.rows == 0) {
    if (!accumulate)
      for (int64_t n = 0; n < dw.rows; ++n) zero(dw.row<float>(n), size_t(dw.cols) * sizeof(float));
    return;
  }
  Matmul matmul{dw.cols, dw.rows, dy.rows, false, true, x.stride, dy.stride, dw.stride, dy.dtype, dw.dtype};
  matmul.beta = accumulate ? 1.0f : 0.0f;
  run_matmul(matmul, dw.data, x.data, dy.data, nullptr);
}

namespace {

template <class C>
struct Values {
  Rows<C> x;
  __device__ float operator()(int64_t row, int64_t column) const { return to_float(x[row][column]); }
};

}  // namespace

void CudaBackend::bias_backward(Tensor dbias, Tensor dy) {
  const int64_t parts = column_parts(dy.rows, dy.cols, resident_blocks());
  float* const sums = partials<float>(parts * dy.cols);
  with_compute(dy.dtype, [&](auto c) {
    using C = decltype(c);
    sum_columns(Values<C>{Rows<C>(dy)}, sums, parts, dy.rows, dy.cols, stream_);
  });
  add_partials(dbias.as<float>(), sums, parts, dy.cols, nullptr);
}

}  // namespace tunesmith::cuda
