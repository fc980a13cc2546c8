// IEEE binary16 as a plain 16-bit value with round-to-nearest-even conversion. A storage type of checkpoints: nothing
// computes in it.
#pragma once

#include "core/dtype.h"

namespace tunesmith {

struct Float16 {
  uint16_t bits;

  Float16() = default;
  explicit Float16(float value) {
    const uint32_t u = std::bit_cast<uint32_t>(value);
    const uint32_t sign = u >> 16 & 0x8000;
    const uint32_t magnitude = u & 0x7fffffff;
    if (magnitude > 0x7f800000) {  // NaN: keep the top of the payload, and make sure that something is left of it
      bits = uint16_t(sign | 0x7e00 | (magnitude >> 13 & 0x3ff));
    } else if (magnitude >= 0x477ff000) {  // 65520 is half-way between the largest finite value and infinity
      bits = uint16_t(sign | 0x7c00);
    } else if (magnitude >= 0x38800000) {  // normal: rebias the exponent by 127 - 15, round 13 bits away
      const uint32_t rebased = magnitude - (uint32_t(127 - 15) << 23);
      bits = uint16_t(sign | ((rebased + 0xfff + (rebased >> 13 & 1)) >> 13));
    } else {  // subnormal or zero: 2^-24 apart, so that adding 0.5 leaves the rounded count in the low mantissa bits
      const float rounded = std::bit_cast<float>(magnitude) + 0.5f;
      bits = uint16_t(sign | (std::bit_cast<uint32_t>(rounded) - std::bit_cast<uint32_t>(0.5f)));
    }
  }
  explicit operator float() const {
    const uint32_t exponent = bits >> 10 & 0x1f;
    const uint32_t mantissa = bits & 0x3ff;
    const float sign = bits & 0x8000 ? -1.0f : 1.0f;
    if (exponent == 0) return sign * std::ldexp(float(mantissa), -24);
    if (exponent == 0x1f) return std::bit_cast<float>(uint32_t(bits & 0x8000) << 16 | 0x7f800000 | mantissa << 13);
    return sign * std::ldexp(float(mantissa | 0x400), int(exponent) - 25);
  }
};

template <>
constexpr DType dtype_of<Float16>() {
  return DType::kFloat16;
}

}  // namespace tunesmith
