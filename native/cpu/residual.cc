// Additions to the residual stream where no norm does them on its way.
#include "cpu/cpu.h"
#include "cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/residual.cc"
#include "hwy/foreach_target.h"  // defines HWY_TARGET for each instruction set

#include "cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tunesmith::cpu::HWY_NAMESPACE {

template <class C>
void add_rows(const Tensor& out, const Tensor& out_compute, const Tensor& residual, const Tensor& delta, int64_t first,
              int64_t last) {
  for (int64_t t = first; t < last; ++t) {
    const float* x = residual.row<float>(t);
    const C* add = delta.row<C>(t);
    float* to = out.row<float>(t);
    C* copy = out_compute ? out_compute.row<C>(t) : nullptr;
    for_lanes(0, out.cols, [&](auto d, int64_t i) HWY_ATTR {
      const auto sum = hn::Add(load(d, x + i), load(d, add + i));
      store(d, sum, to + i);
      if (copy) store(d, sum, copy + i);
    });
  }
}

void residual_add_rows(const Tensor& out, const Tensor& out_compute, const Tensor& residual, const Tensor& delta,
                       int64_t first, int64_t last) {
  const auto run = delta.dtype == DType::kFloat32 ? add_rows<float> : add_rows<BFloat16>;
  run(out, out_compute, residual, delta, first, last);
}

}  // namespace tunesmith::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tunesmith::cpu {

HWY_EXPORT(residual_add_rows);

void CpuBackend::residual_add(Tensor out, Tensor out_compute, Tensor residual, Tensor delta) {
  parallel_ranges(threads_, out.rows, out.cols, [&](int64_t first, int64_t last) {
    HWY_DYNAMIC_DISPATCH(residual_add_rows)(out, out_compute, residual, delta, first, last);
  });
}

}  // namespace tunesmith::cpu
#endif
