// Rotary position embedding (arXiv 2104.09864), halves convention, in place, over the first elements of each head.
#include "cpu/cpu.h"
#include "cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/rope.cc"
#include "hwy/foreach_target.h"  // defines HWY_TARGET for each instruction set

#include "cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tunesmith::cpu::HWY_NAMESPACE {

template <class C>
void rotate(const Tensor& x, int32_t heads, int32_t head_dim, const Tensor& table, const int32_t* positions,
            bool inverse, int64_t first, int64_t last) {
  const int64_t half = table.cols / 2;
  for (int64_t t = first; t < last; ++t) {
    const float* cosine = table.row<float>(positions[t]);
    const float* sine = cosine + half;
    for (int32_t head = 0; head < heads; ++head) {
      C* a = x.row<C>(t) + head * head_dim;
      C* b = a + half;
      for_lanes(0, half, [&](auto d, int64_t i) HWY_ATTR {
        const auto c = load(d, cosine + i);
        const auto s = inverse ? hn::Neg(load(d, sine + i)) : load(d, sine + i);
        const auto left = load(d, a + i), right = load(d, b + i);
        store(d, hn::NegMulAdd(right, s, hn::Mul(left, c)), a + i);
        store(d, hn::MulAdd(left, s, hn::Mul(right, c)), b + i);
      });
    }
  }
}

void rope_rows(const Tensor& x, int32_t heads, int32_t head_dim, const Tensor& table, const int32_t* positions,
               bool inverse, int64_t first, int64_t last) {
  const auto run = x.dtype == DType::kFloat32 ? rotate<float> : rotate<BFloat16>;
  run(x, heads, head_dim, table, positions, inverse, first, last);
}

}  // namespace tunesmith::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tunesmith::cpu {

HWY_EXPORT(rope_rows);

void CpuBackend::rope(Tensor x, int32_t heads, int32_t head_dim, Tensor table, const int32_t* positions, bool inverse) {
  parallel_ranges(threads_, x.rows, int64_t(heads) * head_dim, [&](int64_t first, int64_t last) {
    HWY_DYNAMIC_DISPATCH(rope_rows)(x, heads, head_dim, table, positions, inverse, first, last);
  });
}

}  // namespace tunesmith::cpu
#endif
