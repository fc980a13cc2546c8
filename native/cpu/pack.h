// Packing bfloat16 matmul operands into the blocked layout oneDNN likes, several times faster than its own reorders.
#pragma once

#include <cstdint>

#include "core/tensor.h"

namespace tunesmith::cpu {

struct PackedWeights;

// Most pairs along k that a tile of a known layout may have.
constexpr int64_t kMaxPackedPairs = 64;

// Packs master[k, n] (float32, one of the strides 1) into `to` (bfloat16), whose layout is `known`.
void pack_weights(void* to, const PackedWeights& layout, const float* master, int64_t k, int64_t n, int64_t k_stride,
                  int64_t n_stride, int threads);

// Packs x[k, n] (bfloat16, any row stride) into `to`, as above.
void pack_operand(void* to, const PackedWeights& layout, const Tensor& x, int threads);

// to[n, k] = x[k, n]ᵀ, bfloat16.
void transpose(BFloat16* to, const Tensor& x, int threads);

}  // namespace tunesmith::cpu
