// Logits kept within a cap (Gemma 2, arXiv 2408.00118).
#include "cpu/cpu.h"
#include "cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/softcap.cc"
#include "hwy/foreach_target.h"  // defines HWY_TARGET for each instruction set

#include "cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tunesmith::cpu::HWY_NAMESPACE {

void softcap_forward_rows(const Tensor& x, float cap, int64_t first, int64_t last) {
  for (int64_t r = first; r < last; ++r) {
    float* row = x.row<float>(r);
    for_lanes(0, x.cols, [&](auto d, int64_t i) HWY_ATTR {
      const auto caps = hn::Set(d, cap);
      store(d, hn::Mul(caps, tanh(d, hn::Div(load(d, row + i), caps))), row + i);
    });
  }
}

template <class C>
void slope_rows(const Tensor& dx, const Tensor& y, float cap, int64_t first, int64_t last) {
  for (int64_t r = first; r < last; ++r) {
    const float* capped = y.row<float>(r);
    C* gradient = dx.row<C>(r);
    for_lanes(0, y.cols, [&](auto d, int64_t i) HWY_ATTR {
      const auto share = hn::Div(load(d, capped + i), hn::Set(d, cap));
      const auto slope = hn::NegMulAdd(share, share, hn::Set(d, 1.0f));
      store(d, hn::Mul(load(d, gradient + i), slope), gradient + i);
    });
  }
}

void softcap_backward_rows(const Tensor& dx, const Tensor& y, float cap, int64_t first, int64_t last) {
  const auto run = dx.dtype == DType::kFloat32 ? slope_rows<float> : slope_rows<BFloat16>;
  run(dx, y, cap, first, last);
}

}  // namespace tunesmith::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tunesmith::cpu {

HWY_EXPORT(softcap_forward_rows);
HWY_EXPORT(softcap_backward_rows);

void CpuBackend::softcap_forward(Tensor x, double cap) {
  parallel_ranges(threads_, x.rows, x.cols, [&](int64_t first, int64_t last) {
    HWY_DYNAMIC_DISPATCH(softcap_forward_rows)(x, float(cap), first, last);
  });
}

void CpuBackend::softcap_backward(Tensor dx, Tensor y, double cap) {
  parallel_ranges(threads_, y.rows, y.cols, [&](int64_t first, int64_t last) {
    HWY_DYNAMIC_DISPATCH(softcap_backward_rows)(dx, y, float(cap), first, last);
  });
}

}  // namespace tunesmith::cpu
#endif
