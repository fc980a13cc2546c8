// NEFTune's noise, counter-based.
#include <algorithm>
#include <cmath>

#include "cpu/cpu.h"
#include "cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/embedding_noise.cc"
#include "hwy/foreach_target.h"  // defines HWY_TARGET for each instruction set

#include "cpu/random-inl.h"
#include "cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tunesmith::cpu::HWY_NAMESPACE {

void add_noise(float* x, int64_t width, float scale, uint64_t key, uint32_t position, uint32_t conversation) {
  HWY_ALIGN uint32_t words[4 * kMostLanes];
  for (int64_t h = 0; h < width;) {
    const int64_t count = std::min(4 * random_words(words, key, uint32_t(h / 4), position, conversation), width - h);
    for_lanes(0, count, [&](auto d, int64_t i) HWY_ATTR {
      const hn::Rebind<uint32_t, decltype(d)> du;
      const hn::Rebind<int32_t, decltype(d)> di;
      const auto turned = hn::BitCast(di, hn::Xor(hn::LoadU(du, words + i), hn::Set(du, 0x80000000u)));
      const auto noise = hn::Mul(hn::ConvertTo(d, turned), hn::Set(d, scale * 0x1p-31f));
      store(d, hn::Add(load(d, x + h + i), noise), x + h + i);
    });
    h += count;
  }
}

}  // namespace tunesmith::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tunesmith::cpu {

HWY_EXPORT(add_noise);

void CpuBackend::embedding_noise(Tensor x, const EmbeddingNoise& noise) {
  for (int32_t b = 0; b < noise.sequences; ++b) {
    const int64_t start = noise.offsets[b], length = noise.offsets[b + 1] - start;
    const float scale = float(noise.alpha / std::sqrt(double(length) * double(x.cols)));
    parallel_ranges(threads_, length, 4 * x.cols, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) HWY_DYNAMIC_DISPATCH(add_noise)
      (x.row<float>(start + i), x.cols, scale, noise.key, uint32_t(i), uint32_t(noise.conversations[start + i]));
    });
  }
}

}  // namespace tunesmith::cpu
#endif
