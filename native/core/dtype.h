// Element types, and bfloat16 as a plain 16-bit value with round-to-nearest-even conversion.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace tunesmith {

enum class DType : uint8_t { kFloat64, kFloat32, kBFloat16, kFloat16, kInt32 };

constexpr size_t size_of(DType type) {
  switch (type) {
    case DType::kFloat64:
      return 8;
    case DType::kFloat32:
    case DType::kInt32:
      return 4;
    default:
      return 2;
  }
}

constexpr const char* name_of(DType type) {
  switch (type) {
    case DType::kFloat64:
      return "float64";
    case DType::kFloat32:
      return "float32";
    case DType::kBFloat16:
      return "bfloat16";
    case DType::kFloat16:
      return "float16";
    default:
      return "int32";
  }
}

// The type that master weights, gradients, moments, the residual stream and reductions are kept in.
constexpr DType wide(DType compute) { return compute == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32; }

struct BFloat16 {
  uint16_t bits;

  BFloat16() = default;
  explicit BFloat16(float value) {
    const uint32_t u = std::bit_cast<uint32_t>(value);
    // A NaN whose payload sits in the low half would round to infinity.
    bits = std::isnan(value) ? uint16_t(u >> 16 | 0x40) : uint16_t((u + 0x7fff + (u >> 16 & 1)) >> 16);
  }
  explicit operator float() const { return std::bit_cast<float>(uint32_t(bits) << 16); }
};

template <class T>
constexpr DType dtype_of();
template <>
constexpr DType dtype_of<double>() {
  return DType::kFloat64;
}
template <>
constexpr DType dtype_of<float>() {
  return DType::kFloat32;
}
template <>
constexpr DType dtype_of<BFloat16>() {
  return DType::kBFloat16;
}
template <>
constexpr DType dtype_of<int32_t>() {
  return DType::kInt32;
}

}  // namespace tunesmith
