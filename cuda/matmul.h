// Matrix products, described as BLAS knows them: column-major, which is a row-major matrix seen transposed.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "core/tensor.h"
#include "cuda/launch.h"

namespace tunesmith::cuda {

// D[m,n] = alpha · op(A)[m,k] · op(B)[k,n] + beta · D, plus bias[m] in every column. A column of a matrix is
// contiguous, and columns lie `ld` elements apart. Sums in float32.
struct Matmul {
  int64_t m, n, k;
  bool transpose_a, transpose_b;  // then A is stored as [k,m], B as [n,k]
  int64_t lda, ldb, ldd;
  DType operands;  // of A and B: float32 (in full, not TF32) or bfloat16
  DType result;    // of D
  float alpha = 1, beta = 0;
  bool bias = false;  // float32; D is float32 then
};

class Matmuls {
 public:
  explicit Matmuls(cudaStream_t stream);
  ~Matmuls();

  // What it works on, for people: "cuBLASLt 13.1.0".
  static std::string library();
  // Bytes of workspace that run() is best given.
  static size_t workspace_bytes();
  void run(const Matmul& matmul, void* d, const void* a, const void* b, const void* bias, void* workspace,
           size_t workspace_bytes);

 private:
  struct State;
  std::unique_ptr<State> state_;
  cudaStream_t stream_;
};

}  // namespace tunesmith::cuda
