// A matmul descriptor carried out to the letter: every index is computed from the descriptor, and what it reaches must
// be device memory.
#include "cuda/matmul.h"

#include <vector>

#include "core/error.h"
#include "cuda/host/runtime.h"

namespace tunesmith::cuda {

struct Matmuls::State {};

Matmuls::Matmuls(cudaStream_t stream) : stream_(stream) {}
Matmuls::~Matmuls() = default;

std::string Matmuls::library() { return "literal matmuls"; }
size_t Matmuls::workspace_bytes() { return 0; }

namespace {

float element(const void* matrix, DType type, int64_t index) {
  return type == DType::kFloat32 ? static_cast<const float*>(matrix)[index]
                                 : float(static_cast<const BFloat16*>(matrix)[index]);
}

void check_matrix(const void* matrix, DType type, int64_t rows, int64_t columns, int64_t ld, const char* what) {
  if (ld < rows || ld < 1) throw CodedError("ERR_KERNEL", std::string(what) + ": columns overlap");
  if (rows > 0 && columns > 0) host::check_range(matrix, size_t((columns - 1) * ld + rows) * size_of(type), what);
}

}  // namespace

void Matmuls::run(const Matmul& mm, void* d, const void* a, const void* b, const void* bias, void*, size_t) {
  check(cudaStreamSynchronize(stream_));
  check_matrix(a, mm.operands, mm.transpose_a ? mm.k : mm.m, mm.transpose_a ? mm.m : mm.k, mm.lda, "A of a matmul");
  check_matrix(b, mm.operands, mm.transpose_b ? mm.n : mm.k, mm.transpose_b ? mm.k : mm.n, mm.ldb, "B of a matmul");
  check_matrix(d, mm.result, mm.m, mm.n, mm.ldd, "D of a matmul");
  if (mm.bias) host::check_range(bias, size_t(mm.m) * sizeof(float), "bias of a matmul");
  if (mm.bias && mm.result != DType::kFloat32)
    throw CodedError("ERR_KERNEL", "a matmul with a float32 bias and a narrower result");
  // op(A) row by row and op(B) column by column, so that the products run along contiguous memory.
  std::vector<float> rows(size_t(mm.m * mm.k)), columns(size_t(mm.k * mm.n));
  for (int64_t i = 0; i < mm.m; ++i)
    for (int64_t l = 0; l < mm.k; ++l)
      rows[size_t(i * mm.k + l)] = element(a, mm.operands, mm.transpose_a ? i * mm.lda + l : l * mm.lda + i);
  for (int64_t j = 0; j < mm.n; ++j)
    for (int64_t l = 0; l < mm.k; ++l)
      columns[size_t(j * mm.k + l)] = element(b, mm.operands, mm.transpose_b ? l * mm.ldb + j : j * mm.ldb + l);
  for (int64_t j = 0; j < mm.n; ++j)
    for (int64_t i = 0; i < mm.m; ++i) {
      constexpr int64_t kLanes = 16;
      float sums[kLanes] = {};
      const float *x = &rows[size_t(i * mm.k)], *y = &columns[size_t(j * mm.k)];
      int64_t l = 0;
      for (; l + kLanes <= mm.k; l += kLanes)
        for (int64_t lane = 0; lane < kLanes; ++lane) sums[lane] += x[l + lane] * y[l + lane];
      for (; l < mm.k; ++l) sums[l % kLanes] += x[l] * y[l];
      float sum = 0;
      for (const float part : sums) sum += part;
      float value = mm.alpha * sum;
      const int64_t at = j * mm.ldd + i;
      if (mm.beta != 0) value += mm.beta * element(d, mm.result, at);
      if (mm.bias) value += static_cast<const float*>(bias)[i];
      if (mm.result == DType::kFloat32)
        static_cast<float*>(d)[at] = value;
      else
        static_cast<BFloat16*>(d)[at] = BFloat16(value);
    }
}

}  // namespace tunesmith::cuda
