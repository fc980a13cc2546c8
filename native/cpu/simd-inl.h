// What the vector files share, once per instruction set: float32 lanes loaded from and stored to float32 or bfloat16
// memory, loops with their tail, sums, exp and tanh.
#if defined(TUNESMITH_CPU_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TUNESMITH_CPU_SIMD_INL_H_
#undef TUNESMITH_CPU_SIMD_INL_H_
#else
#define TUNESMITH_CPU_SIMD_INL_H_
#endif

#include <cstdint>
#include <limits>

#include "core/dtype.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tunesmith::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::ScalableTag<float>;
using OneFloat = hn::CappedTag<float, 1>;

template <class D>
HWY_INLINE hn::Vec<D> load(D d, const float* from) {
  return hn::LoadU(d, from);
}

template <class D>
HWY_INLINE hn::Vec<D> load(D d, const BFloat16* from) {
  const hn::Rebind<uint16_t, D> d16;
  const hn::Rebind<uint32_t, D> d32;
  const auto bits = hn::LoadU(d16, reinterpret_cast<const uint16_t*>(from));
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, bits)));
}

template <class D, class V>
HWY_INLINE void store(D d, V value, float* to) {
  hn::StoreU(value, d, to);
}

// The bits of each lane as bfloat16, rounded to nearest even as BFloat16(float) does, in 32-bit lanes.
template <class D, class V>
HWY_INLINE hn::Vec<hn::Rebind<uint32_t, D>> bfloat16_bits([[maybe_unused]] D d, V value) {
  const hn::Rebind<uint32_t, D> d32;
  const auto bits = hn::BitCast(d32, value);
  const auto lowest = hn::And(hn::ShiftRight<16>(bits), hn::Set(d32, 1u));
  const auto rounded = hn::Add(bits, hn::Add(lowest, hn::Set(d32, 0x7fffu)));
  const auto nan = hn::Or(bits, hn::Set(d32, 0x400000u));
  return hn::ShiftRight<16>(hn::IfThenElse(hn::RebindMask(d32, hn::IsNaN(value)), nan, rounded));
}

template <class D, class V>
HWY_INLINE void store(D d, V value, BFloat16* to) {
  const hn::Rebind<uint16_t, D> d16;
  hn::StoreU(hn::TruncateTo(d16, bfloat16_bits(d, value)), d16, reinterpret_cast<uint16_t*>(to));
}

#if HWY_TARGET != HWY_SCALAR
using FourTag = hn::FixedTag<float, 4>;
using FourFloats = hn::Vec<FourTag>;

// Rows become columns, of any 32-bit elements.
HWY_INLINE void transpose_4x4(FourFloats (&rows)[4]) {
  const FourTag d;
  const hn::RepartitionToWide<FourTag> pairs;
  const auto a = hn::BitCast(pairs, hn::InterleaveLower(d, rows[0], rows[1]));  // columns 0 and 1 of rows 0 and 1
  const auto b = hn::BitCast(pairs, hn::InterleaveLower(d, rows[2], rows[3]));
  const auto e = hn::BitCast(pairs, hn::InterleaveUpper(d, rows[0], rows[1]));  // columns 2 and 3
  const auto f = hn::BitCast(pairs, hn::InterleaveUpper(d, rows[2], rows[3]));
  rows[0] = hn::BitCast(d, hn::InterleaveLower(pairs, a, b));
  rows[1] = hn::BitCast(d, hn::InterleaveUpper(pairs, a, b));
  rows[2] = hn::BitCast(d, hn::InterleaveLower(pairs, e, f));
  rows[3] = hn::BitCast(d, hn::InterleaveUpper(pairs, e, f));
}
#endif

// body(d, i) over [first, last): whole vectors, then single lanes.
template <class Body>
HWY_INLINE void for_lanes(int64_t first, int64_t last, const Body& body) {
  const FloatTag d;
  const int64_t lanes = int64_t(hn::Lanes(d));
  int64_t i = first;
  for (; i + lanes <= last; i += lanes) body(d, i);
  for (; i < last; ++i) body(OneFloat(), i);
}

// Σ value(d, i) over [0, n). Up to four vectors per step, so that the additions do not wait for one another.
template <class Value>
HWY_INLINE float sum_over(int64_t n, const Value& value) {
  const FloatTag d;
  const int64_t lanes = int64_t(hn::Lanes(d));
  auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
  int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    s0 = hn::Add(s0, value(d, i));
    s1 = hn::Add(s1, value(d, i + lanes));
    s2 = hn::Add(s2, value(d, i + 2 * lanes));
    s3 = hn::Add(s3, value(d, i + 3 * lanes));
  }
  for (; i + lanes <= n; i += lanes) s0 = hn::Add(s0, value(d, i));
  float sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
  for (; i < n; ++i) sum += hn::GetLane(value(OneFloat(), i));
  return sum;
}

// e^x within 2 ulp; 0 below -87.33, where the result would be subnormal, and infinity above 88. NaN stays NaN: on x86
// Max and Min return their second operand where either is NaN.
template <class D, class V>
HWY_INLINE V exp(D d, V x) {
  const hn::Rebind<int32_t, D> di;
  const auto lowest = hn::Set(d, -87.33654f);
  const auto highest = hn::Set(d, 88.0f);
  const auto subnormal = hn::Lt(x, lowest), large = hn::Gt(x, highest);
  x = hn::Max(lowest, hn::Min(highest, x));
  // x = n ln 2 + r with |r| <= ln 2 / 2. The first part of ln 2 has few bits, so that n times it is exact.
  const auto n = hn::Round(hn::Mul(x, hn::Set(d, 1.44269504f)));
  auto r = hn::NegMulAdd(n, hn::Set(d, 0.693359375f), x);
  r = hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4f), r);
  // e^r = 1 + r + r² q(r), q the minimax polynomial of degree 4 (relative error of e^r 3e-9).
  auto q = hn::Set(d, 1.381459878757596e-3f);
  q = hn::MulAdd(q, r, hn::Set(d, 8.368716575205326e-3f));
  q = hn::MulAdd(q, r, hn::Set(d, 4.166838899254799e-2f));
  q = hn::MulAdd(q, r, hn::Set(d, 1.666652113199234e-1f));
  q = hn::MulAdd(q, r, hn::Set(d, 4.999999403953552e-1f));
  const auto fraction = hn::Add(hn::MulAdd(q, hn::Mul(r, r), r), hn::Set(d, 1.0f));
  const auto power = hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(hn::ConvertTo(di, n), hn::Set(di, 127))));
  const auto result = hn::IfThenElse(subnormal, hn::Zero(d), hn::Mul(fraction, power));
  return hn::IfThenElse(large, hn::Set(d, std::numeric_limits<float>::infinity()), result);
}

// tanh x within 2 ulp: a polynomial near 0, where 1 - 2 / (e^2x + 1) would lose its digits. NaN stays NaN.
template <class D, class V>
HWY_INLINE V tanh(D d, V x) {
  const auto one = hn::Set(d, 1.0f), magnitude = hn::Abs(x), z = hn::Mul(x, x);
  auto near = hn::Set(d, -5.70498872745e-3f);
  near = hn::MulAdd(near, z, hn::Set(d, 2.06390887954e-2f));
  near = hn::MulAdd(near, z, hn::Set(d, -5.37397155531e-2f));
  near = hn::MulAdd(near, z, hn::Set(d, 1.33314422036e-1f));
  near = hn::MulAdd(near, z, hn::Set(d, -3.33332819422e-1f));
  near = hn::MulAdd(hn::Mul(near, z), x, x);
  const auto power = exp(d, hn::Add(magnitude, magnitude));
  const auto far = hn::Sub(one, hn::Div(hn::Set(d, 2.0f), hn::Add(power, one)));
  return hn::IfThenElse(hn::Lt(magnitude, hn::Set(d, 0.625f)), near, hn::CopySign(far, x));
}

}  // namespace tunesmith::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
