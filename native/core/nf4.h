// NF4 with double quantisation (QLoRA, arXiv 2305.14314), stored as bitsandbytes stores it. A matrix is read row after
// row as one sequence of values and cut into blocks of 64:
//   value = kNf4Values[code] · scale of its block                 code: 4 bits, the nearest to value / absmax
//   scale = absmax of the block, float32                                                             (plain)
//   scale = signed_dynamic_code()[scale code] · absmax of its group + offset, groups of 256 blocks   (doubled)
// A plain value takes 4.5 bits, a doubled one 4.127.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "core/dynamic_code.h"

namespace tunesmith {

constexpr int64_t kNf4Block = 64;   // values
constexpr int64_t kNf4Group = 256;  // blocks

// Quantiles of the normal distribution, scaled to [-1, 1], zero among them (appendix E of the paper).
inline constexpr std::array<float, 16> kNf4Values = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};
constexpr uint8_t kNf4Zero = 7;  // the code of 0

// Rows of a weight, quantised. A view: owns nothing.
struct Nf4Matrix {
  int64_t rows = 0, cols = 0;
  uint8_t* codes = nullptr;        // [ceil(rows · cols / 2)] two values a byte, the first in the high half
  float* absmax = nullptr;         // plain: [blocks]; doubled: [groups]
  uint8_t* scale_codes = nullptr;  // doubled: [blocks]; plain: null
  float* offset = nullptr;         // doubled: [1]

  int64_t size() const { return rows * cols; }
  int64_t blocks() const { return (size() + kNf4Block - 1) / kNf4Block; }
  int64_t groups() const { return (blocks() + kNf4Group - 1) / kNf4Group; }
  bool doubled() const { return scale_codes != nullptr; }

  // For views of host memory.
  float scale(int64_t block) const {
    return doubled() ? signed_dynamic_code()[scale_codes[block]] * absmax[block / kNf4Group] + *offset : absmax[block];
  }
  uint8_t code(int64_t index) const { return index % 2 ? codes[index / 2] & 15 : codes[index / 2] >> 4; }
  float value(int64_t index) const { return kNf4Values[code(index)] * scale(index / kNf4Block); }
};

// One block of 1 to 64 values: writes (count + 1) / 2 bytes of codes, returns absmax. A value half-way between two
// codes takes the lower one. Where all values are 0, or so small that 1 / absmax overflows, all codes are those of 0
// and absmax is 0 (bitsandbytes divides by zero there and stores the code of -1).
float nf4_quantize_block(uint8_t* codes, const float* values, int64_t count);

// The scales of a whole matrix, quantised in their turn: scale_codes [blocks], group_absmax [groups]. Returns the
// offset, the mean of the absmax, summed in float64 (the last bit of bitsandbytes' depends on its device).
float nf4_quantize_scales(uint8_t* scale_codes, float* group_absmax, const std::vector<float>& absmax);

}  // namespace tunesmith
