// Packing bfloat16 matmul operands into the blocked layout oneDNN likes, several times faster than its own reorders.
#pragma once

#include <cstdint>

#include <span>

#include "core/nf4.h"
#include "core/tensor.h"

namespace tunesmith::cpu {

struct PackedWeights;

// Most pairs along k that a tile of a known layout may have.
constexpr int64_t kMaxPackedPairs = 64;
// And most columns.
constexpr int64_t kMaxPackedColumns = 64;

// Packs master[k, n] (float32, one of the strides 1) into `to` (bfloat16), whose layout is `known`.
void pack_weights(void* to, const PackedWeights& layout, const float* master, int64_t k, int64_t n, int64_t k_stride,
                  int64_t n_stride, int threads);

// Packs a quantised W[n, k], or with `transposed` W[k, n], into `to`, as above. No more than a tile of it is ever there
// in float32.
void pack_quantized(void* to, const PackedWeights& layout, std::span<const Nf4Matrix> w, int64_t k, int64_t n,
                    bool transposed, int threads);

// Packs x[k, n] (bfloat16, any row stride) into `to`, as above.
void pack_operand(void* to, const PackedWeights& layout, const Tensor& x, int threads);

// to[n, k] = x[k, n]ᵀ, bfloat16.
void transpose(BFloat16* to, const Tensor& x, int threads);

}  // namespace tunesmith::cpu
