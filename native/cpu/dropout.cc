// Inverted dropout (arXiv 1207.0580) with a counter-based mask: as many philox counters at once as a vector has lanes.
#include <array>
#include <cmath>

#include "core/rng.h"
#include "cpu/cpu.h"
#include "cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/dropout.cc"
#include "hwy/foreach_target.h"  // defines HWY_TARGET for each instruction set

#include "cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tunesmith::cpu::HWY_NAMESPACE {

constexpr int64_t kMostLanes = HWY_MAX_BYTES / int64_t(sizeof(uint32_t));

#if HWY_TARGET != HWY_SCALAR
using WordTag = hn::ScalableTag<uint32_t>;
using Words = hn::Vec<WordTag>;

// Both halves of the product of every lane with `by`.
HWY_INLINE void multiply(Words x, uint32_t by, Words& high, Words& low) {
  const WordTag d;
  const hn::RepartitionToWide<WordTag> pairs;
  const auto factor = hn::Set(d, by);
  const auto even = hn::MulEven(x, factor);
  const auto odd = hn::MulEven(hn::BitCast(d, hn::ShiftRight<32>(hn::BitCast(pairs, x))), factor);
  high = hn::OddEven(hn::BitCast(d, odd), hn::BitCast(d, hn::ShiftRight<32>(even)));
  low = hn::OddEven(hn::BitCast(d, hn::ShiftLeft<32>(odd)), hn::BitCast(d, even));
}

// philox() of core/rng.h for the counters {group, position, conversation, 0}, {group + 1, ...}, ...; returns how many.
HWY_INLINE int64_t random_words(uint32_t* words, uint64_t key, uint32_t group, uint32_t position,
                                uint32_t conversation) {
  const WordTag d;
  Words c0 = hn::Iota(d, group), c1 = hn::Set(d, position), c2 = hn::Set(d, conversation), c3 = hn::Zero(d);
  uint32_t k0 = uint32_t(key), k1 = uint32_t(key >> 32);
  for (int round = 0; round < 10; ++round) {
    Words high0, low0, high1, low1;
    multiply(c0, 0xD2511F53u, high0, low0);
    multiply(c2, 0xCD9E8D57u, high1, low1);
    c0 = hn::Xor(hn::Xor(high1, c1), hn::Set(d, k0));
    c2 = hn::Xor(hn::Xor(high0, c3), hn::Set(d, k1));
    c1 = low1;
    c3 = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  hn::StoreInterleaved4(c0, c1, c2, c3, d, words);
  return int64_t(hn::Lanes(d));
}
#else
HWY_INLINE int64_t random_words(uint32_t* words, uint64_t key, uint32_t group, uint32_t position,
                                uint32_t conversation) {
  const std::array<uint32_t, 4> result = philox(key, {group, position, conversation, 0});
  std::copy(result.begin(), result.end(), words);
  return 1;
}
#endif

template <class C>
void dropout_typed(const Tensor& y, const Tensor& x, const DropoutMask& mask, bool accumulate, int64_t first,
                   int64_t last) {
  HWY_ALIGN uint32_t words[4 * kMostLanes];
  const float scale = float(1 / (1 - mask.probability));
  // The smallest word that is kept; below 2³², for probability is below 1 by more than 2⁻³² or the scale is infinite.
  const uint32_t threshold = uint32_t(std::ceil(mask.probability * 0x1p32));
  for (int64_t t = first; t < last; ++t) {
    const C* from = x.row<C>(t);
    C* to = y.row<C>(t);
    for (int64_t c = 0; c < x.cols;) {
      const int64_t groups =
          random_words(words, mask.key, uint32_t(c / 4), uint32_t(mask.positions[t]), uint32_t(mask.conversations[t]));
      const int64_t count = std::min(4 * groups, x.cols - c);
      for_lanes(0, count, [&](auto d, int64_t i) HWY_ATTR {
        const hn::Rebind<uint32_t, decltype(d)> du;
        const auto word = hn::LoadU(du, words + i);
        // word >= threshold; vectors have no such comparison of unsigned lanes.
        const auto keep = hn::RebindMask(d, hn::Eq(hn::Max(word, hn::Set(du, threshold)), word));
        const auto kept = hn::IfThenElseZero(keep, hn::Mul(load(d, from + c + i), hn::Set(d, scale)));
        store(d, accumulate ? hn::Add(load(d, to + c + i), kept) : kept, to + c + i);
      });
      c += count;
    }
  }
}

void dropout_rows(const Tensor& y, const Tensor& x, const DropoutMask& mask, bool accumulate, int64_t first,
                  int64_t last) {
  const auto run = x.dtype == DType::kFloat32 ? dropout_typed<float> : dropout_typed<BFloat16>;
  run(y, x, mask, accumulate, first, last);
}

}  // namespace tunesmith::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tunesmith::cpu {

HWY_EXPORT(dropout_rows);

void CpuBackend::dropout(Tensor y, Tensor x, const DropoutMask& mask, bool accumulate) {
  // Random words cost several times what streaming an element does.
  parallel_ranges(threads_, x.rows, 4 * x.cols, [&](int64_t first, int64_t last) {
    HWY_DYNAMIC_DISPATCH(dropout_rows)(y, x, mask, accumulate, first, last);
  });
}

}  // namespace tunesmith::cpu
#endif
