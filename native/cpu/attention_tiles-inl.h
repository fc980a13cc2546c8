// Tile arithmetic of attention, once per instruction set: small matrix products with register blocking, and the packing
// of their operands. Two kinds of tile share every loop:
//   FloatTiles<In>  elements are float32, converted from In as they are packed
//   PairTiles       elements are pairs of bfloat16 neighbours along the summed dimension, multiplied by VDPBF16PS,
//   which
//                   Highway 1.0.3 does not offer; only where the processor has AVX512_BF16
// Both are 32 bits wide, so a product of pairs is the product of floats with half the steps.
#if defined(TUNESMITH_CPU_ATTENTION_TILES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TUNESMITH_CPU_ATTENTION_TILES_INL_H_
#undef TUNESMITH_CPU_ATTENTION_TILES_INL_H_
#else
#define TUNESMITH_CPU_ATTENTION_TILES_INL_H_
#endif

#include <cstring>

#include "cpu/attention.h"
#include "cpu/simd-inl.h"

#undef TUNESMITH_PAIR_TILES
#if HWY_TARGET == HWY_AVX3
#include <immintrin.h>
#define TUNESMITH_PAIR_TILES 1
#else
#define TUNESMITH_PAIR_TILES 0
#endif

HWY_BEFORE_NAMESPACE();
#if TUNESMITH_PAIR_TILES
#pragma GCC push_options
#pragma GCC target("avx512bf16")
#endif
namespace tunesmith::cpu::HWY_NAMESPACE {

using FloatVector = hn::Vec<FloatTag>;
constexpr int64_t kLanes = int64_t(hn::MaxLanes(FloatTag()));
// Register block of the products: kRowBlock x kVectorBlock accumulators.
constexpr int kRowBlock = 4, kVectorBlock = kLanes == 16 ? 4 : 2;

template <class In>
struct FloatTiles {
  using Input = In;
  static constexpr int64_t kPair = 1;

  static HWY_INLINE FloatVector multiply_add(FloatVector a, FloatVector b, FloatVector sum) {
    return hn::MulAdd(a, b, sum);
  }
  // One packed row: to[i] = row[i].
  static HWY_INLINE void pack_row(float* to, const In* row, const In*, int64_t n) {
    for_lanes(0, n, [&](auto d, int64_t i) HWY_ATTR { store(d, load(d, row + i), to + i); });
  }
  static HWY_INLINE float element(const In* row, int64_t i) { return float(row[i]); }
#if HWY_TARGET != HWY_SCALAR
  static HWY_INLINE FourFloats four_elements(const In* row, int64_t i) { return load(FourTag(), row + i); }
#endif
  // Two neighbouring rows of weights, one vector each, as elements that are summed over the rows.
  static HWY_INLINE void put_rows(float* to, FloatVector first, FloatVector second) {
    const FloatTag d;
    hn::StoreU(first, d, to);
    hn::StoreU(second, d, to + kQueryBlock);
  }
};

#if TUNESMITH_PAIR_TILES
struct PairTiles {
  using Input = BFloat16;
  static constexpr int64_t kPair = 2;

  static HWY_INLINE FloatVector multiply_add(FloatVector a, FloatVector b, FloatVector sum) {
    return FloatVector{
        _mm512_dpbf16_ps(sum.raw, (__m512bh)_mm512_castps_si512(a.raw), (__m512bh)_mm512_castps_si512(b.raw))};
  }
  // Two rows interleaved; `second` may be null for a row of zeros.
  static HWY_INLINE void pack_row(float* to, const BFloat16* first, const BFloat16* second, int64_t n) {
    for_lanes(0, n, [&](auto d, int64_t i) HWY_ATTR {
      const hn::Rebind<uint16_t, decltype(d)> d16;
      const hn::Rebind<uint32_t, decltype(d)> d32;
      auto both = hn::PromoteTo(d32, hn::LoadU(d16, reinterpret_cast<const uint16_t*>(first + i)));
      if (second)
        both = hn::Or(
            both, hn::ShiftLeft<16>(hn::PromoteTo(d32, hn::LoadU(d16, reinterpret_cast<const uint16_t*>(second + i)))));
      hn::StoreU(hn::BitCast(d, both), d, to + i);
    });
  }
  static HWY_INLINE float element(const BFloat16* row, int64_t i) {
    float pair;
    std::memcpy(&pair, row + 2 * i, sizeof(pair));
    return pair;
  }
  static HWY_INLINE FourFloats four_elements(const BFloat16* row, int64_t i) {
    return FourFloats{_mm_loadu_ps(reinterpret_cast<const float*>(row + 2 * i))};
  }
  static HWY_INLINE void put_half(BFloat16* to, FloatVector v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), (__m256i)_mm512_cvtneps_pbh(v.raw));
  }
  static HWY_INLINE __m512i widen(FloatVector v) { return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(v.raw)); }
  static HWY_INLINE void put_rows(float* to, FloatVector first, FloatVector second) {
    _mm512_storeu_si512(to, _mm512_or_si512(widen(first), _mm512_slli_epi32(widen(second), 16)));
  }
};
#endif

// c[m, n] (+)= a[m, steps] · b[steps, n]. a is addressed in bytes, element (i, s) at a + i·a_row + s·a_step.
template <class Tiles, int kRows, int kVectors>
HWY_INLINE void multiply_block(float* HWY_RESTRICT c, int64_t c_stride, bool accumulate, const char* HWY_RESTRICT a,
                               int64_t a_row, int64_t a_step, const float* HWY_RESTRICT b, int64_t b_stride,
                               int64_t steps) {
  const FloatTag d;
  FloatVector sum[kRows][kVectors];
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v)
      sum[r][v] = accumulate ? hn::LoadU(d, c + r * c_stride + v * kLanes) : hn::Zero(d);
  for (int64_t s = 0; s < steps; ++s) {
    FloatVector column[kVectors];
    for (int v = 0; v < kVectors; ++v) column[v] = hn::LoadU(d, b + s * b_stride + v * kLanes);
    for (int r = 0; r < kRows; ++r) {
      float element;
      std::memcpy(&element, a + r * a_row + s * a_step, sizeof(element));
      const auto row = hn::Set(d, element);
      for (int v = 0; v < kVectors; ++v) sum[r][v] = Tiles::multiply_add(row, column[v], sum[r][v]);
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) hn::StoreU(sum[r][v], d, c + r * c_stride + v * kLanes);
}

template <class Tiles, int kVectors>
HWY_INLINE void multiply_columns(float* c, int64_t c_stride, bool accumulate, const char* a, int64_t a_row,
                                 int64_t a_step, const float* b, int64_t b_stride, int64_t m, int64_t steps) {
  int64_t i = 0;
  for (; i + kRowBlock <= m; i += kRowBlock)
    multiply_block<Tiles, kRowBlock, kVectors>(c + i * c_stride, c_stride, accumulate, a + i * a_row, a_row, a_step, b,
                                               b_stride, steps);
  for (; i < m; ++i)
    multiply_block<Tiles, 1, kVectors>(c + i * c_stride, c_stride, accumulate, a + i * a_row, a_row, a_step, b,
                                       b_stride, steps);
}

// n is a multiple of kLanes.
template <class Tiles>
HWY_NOINLINE void multiply(float* c, int64_t c_stride, bool accumulate, const char* a, int64_t a_row, int64_t a_step,
                           const float* b, int64_t b_stride, int64_t m, int64_t n, int64_t steps) {
  int64_t j = 0;
  for (; j + kVectorBlock * kLanes <= n; j += kVectorBlock * kLanes)
    multiply_columns<Tiles, kVectorBlock>(c + j, c_stride, accumulate, a, a_row, a_step, b + j, b_stride, m, steps);
  const int64_t left = (n - j) / kLanes;
  if (left == 3)
    multiply_columns<Tiles, 3>(c + j, c_stride, accumulate, a, a_row, a_step, b + j, b_stride, m, steps);
  else if (left == 2)
    multiply_columns<Tiles, 2>(c + j, c_stride, accumulate, a, a_row, a_step, b + j, b_stride, m, steps);
  else if (left == 1)
    multiply_columns<Tiles, 1>(c + j, c_stride, accumulate, a, a_row, a_step, b + j, b_stride, m, steps);
}

// e^x for x <= 0 (a little above by rounding), within 4e-7 (1 + |x|): the exponentials of attention, where speed shows.
// 0 for -infinity; NaN stays NaN (see exp).
HWY_INLINE FloatVector exp_negative(FloatVector x) {
  const FloatTag d;
  x = hn::Mul(x, hn::Set(d, 1.44269504f));
#if HWY_TARGET == HWY_AVX3
  // Two instructions of AVX-512 fit: VREDUCEPS gives x - round(x), 0 for infinities; VSCALEFPS multiplies by 2^n.
  const auto f = FloatVector{_mm512_reduce_ps(x.raw, 0)};
#else
  const auto lowest = hn::Set(d, -126.0f);
  const auto vanishes = hn::Lt(x, lowest);
  x = hn::Max(lowest, x);
  const auto n = hn::Round(x);
  const auto f = hn::Sub(x, n);
#endif
  // 2^f on |f| <= 1/2: the minimax polynomial of degree 5, relative error 8e-8.
  auto p = hn::Set(d, 0.0013276472454890609f);
  p = hn::MulAdd(p, f, hn::Set(d, 0.009675541892647743f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.05550713092088699f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.24022120237350464f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.6931469440460205f));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0000001192092896f));
#if HWY_TARGET == HWY_AVX3
  return FloatVector{_mm512_scalef_ps(p.raw, _mm512_roundscale_ps(x.raw, 0))};
#else
  const hn::RebindToSigned<FloatTag> di;
  const auto power = hn::ShiftLeft<23>(hn::Add(hn::ConvertTo(di, n), hn::Set(di, 127)));
  return hn::IfThenElse(vanishes, hn::Zero(d), hn::Mul(p, hn::BitCast(d, power)));
#endif
}

// to[c][0..4) = column c of four rows of elements, for c in [0, steps); successive c lie kQueryBlock apart.
template <class Tiles>
HWY_INLINE void transpose_four(float* to, const typename Tiles::Input* const* rows, int64_t steps) {
  int64_t c = 0;
#if HWY_TARGET != HWY_SCALAR
  for (; c + 4 <= steps; c += 4) {
    FourFloats block[4];
    for (int r = 0; r < 4; ++r) block[r] = Tiles::four_elements(rows[r], c);
    transpose_4x4(block);
    for (int i = 0; i < 4; ++i) hn::StoreU(block[i], FourTag(), to + (c + i) * kQueryBlock);
  }
#endif
  for (; c < steps; ++c)
    for (int r = 0; r < 4; ++r) to[c * kQueryBlock + r] = Tiles::element(rows[r], c);
}

}  // namespace tunesmith::cpu::HWY_NAMESPACE
#if TUNESMITH_PAIR_TILES
#pragma GCC pop_options
#endif
HWY_AFTER_NAMESPACE();

#endif
