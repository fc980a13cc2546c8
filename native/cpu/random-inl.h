// Counter-based random words (core/rng.h), once per instruction set: as many philox counters at once as a vector has
// lanes.
#if defined(TUNESMITH_CPU_RANDOM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TUNESMITH_CPU_RANDOM_INL_H_
#undef TUNESMITH_CPU_RANDOM_INL_H_
#else
#define TUNESMITH_CPU_RANDOM_INL_H_
#endif

#include <algorithm>
#include <array>
#include <cstdint>

#include "core/rng.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tunesmith::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

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

}  // namespace tunesmith::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
