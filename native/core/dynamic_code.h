// The 8-bit type with a dynamic exponent in which optimizer moments are kept (arXiv 1511.04561, 2110.02861, as
// bitsandbytes' create_dynamic_map() has it): 256 values in ascending order, found by the nearest.
//   signed    0, 1, and per decade 10^(i-6), i = 0..6, ± the 2^i middles of equal parts of [0.1, 1]
//   unsigned  0, 1, and per decade the 2^(i+1) middles
#pragma once

#include <array>
#include <cstdint>

namespace tunesmith {

constexpr int64_t kDynamicBlock = 256;  // values that share one absmax

using DynamicCode = std::array<float, 256>;

const DynamicCode& signed_dynamic_code();
const DynamicCode& unsigned_dynamic_code();

// Index of the nearest value to each x in [-1, 1]; half-way between two the even index, as in bitsandbytes' binary
// search. A value of the signed code keeps its sign: what is negative, -0 too, and would round to 0 takes the largest
// negative.
void encode_signed(uint8_t* codes, const float* x, int64_t count);
// Each x in [0, 1].
void encode_unsigned(uint8_t* codes, const float* x, int64_t count);

}  // namespace tunesmith
