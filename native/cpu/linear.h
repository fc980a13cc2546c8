// The matmuls of a linear layer with W[n, k]; bfloat16 weights are packed.
#pragma once

#include "cpu/matmul.h"

namespace tunesmith::cpu {

inline MatmulProblem forward_problem(const Tensor& y, const Tensor& x, int64_t n, int64_t k, bool bias) {
  const bool packed = x.dtype == DType::kBFloat16;
  return {x.rows, n, k, x.dtype, {x.stride, 1}, packed, {1, k}, y.dtype, y.stride, false, bias};
}

inline MatmulProblem input_gradient_problem(const Tensor& dx, const Tensor& dy, int64_t n, int64_t k, bool accumulate) {
  const bool packed = dy.dtype == DType::kBFloat16;
  return {dy.rows, k, n, dy.dtype, {dy.stride, 1}, packed, {k, 1}, dx.dtype, dx.stride, accumulate, false};
}

}  // namespace tunesmith::cpu
