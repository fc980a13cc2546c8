// Inverted dropout (arXiv 1207.0580) with a counter-based mask: as many philox counters at once as a vector has lanes.
#include <cmath>

#include "cpu/cpu.h"
#include "cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/dropout.cc"
#include "hwy/foreach_target.h"  // defines HWY_TARGET for each instruction set

#include "cpu/random-inl.h"
#include "cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tunesmith::cpu::HWY_NAMESPACE {

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
