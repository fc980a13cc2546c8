// RMSNorm (arXiv 1910.07467) of groups of columns that share their weights: heads of queries and keys, or whole rows.
#include <cmath>
#include <vector>

#include "cpu/cpu.h"
#include "cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/group_rmsnorm.cc"
#include "hwy/foreach_target.h"  // defines HWY_TARGET for each instruction set

#include "cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tunesmith::cpu::HWY_NAMESPACE {

template <class C>
HWY_INLINE float reciprocal_root(const C* x, int64_t n, double epsilon) {
  const float squares = sum_over(n, [&](auto d, int64_t i) HWY_ATTR {
    const auto v = load(d, x + i);
    return hn::Mul(v, v);
  });
  return float(1.0 / std::sqrt(double(squares) / double(n) + epsilon));
}

template <class C>
void forward_groups(const Tensor& y, const Tensor& x, int32_t groups, const Tensor& weight, float offset,
                    double epsilon, int64_t first, int64_t last) {
  const int64_t width = weight.size();
  const float* w = weight.as<float>();
  for (int64_t t = first; t < last; ++t)
    for (int32_t g = 0; g < groups; ++g) {
      const C* from = x.row<C>(t) + g * width;
      C* to = y.row<C>(t) + g * width;
      const float r = reciprocal_root(from, width, epsilon);
      for_lanes(0, width, [&](auto d, int64_t i) HWY_ATTR {
        const auto factor = hn::Add(load(d, w + i), hn::Set(d, offset));
        store(d, hn::Mul(hn::Mul(load(d, from + i), hn::Set(d, r)), factor), to + i);
      });
    }
}

template <class C>
void backward_groups(const Tensor& dx, float* dweight, const Tensor& dy, const Tensor& x, int32_t groups,
                     const Tensor& weight, float offset, double epsilon, int64_t first, int64_t last) {
  const int64_t width = weight.size();
  const float* w = weight.as<float>();
  for (int64_t t = first; t < last; ++t)
    for (int32_t g = 0; g < groups; ++g) {
      const C* in = x.row<C>(t) + g * width;
      const C* grad = dy.row<C>(t) + g * width;
      C* to = dx.row<C>(t) + g * width;
      const float r = reciprocal_root(in, width, epsilon);
      const float dot = sum_over(width, [&](auto d, int64_t i) HWY_ATTR {
        const auto factor = hn::Add(load(d, w + i), hn::Set(d, offset));
        return hn::Mul(hn::Mul(load(d, grad + i), factor), load(d, in + i));
      });
      const float pull = float(double(r) * double(r) * double(dot) / double(width));
      for_lanes(0, width, [&](auto d, int64_t i) HWY_ATTR {
        // All is read before dx is written: it may be dy.
        const auto gradient = load(d, grad + i), value = load(d, in + i), scale = hn::Set(d, r);
        const auto weighted = hn::Mul(gradient, hn::Add(load(d, w + i), hn::Set(d, offset)));
        if (dweight) store(d, hn::MulAdd(gradient, hn::Mul(value, scale), load(d, dweight + i)), dweight + i);
        store(d, hn::Mul(hn::NegMulAdd(value, hn::Set(d, pull), weighted), scale), to + i);
      });
    }
}

void group_rmsnorm_forward_rows(const Tensor& y, const Tensor& x, int32_t groups, const Tensor& weight, float offset,
                                double epsilon, int64_t first, int64_t last) {
  const auto run = x.dtype == DType::kFloat32 ? forward_groups<float> : forward_groups<BFloat16>;
  run(y, x, groups, weight, offset, epsilon, first, last);
}

void group_rmsnorm_backward_rows(const Tensor& dx, float* dweight, const Tensor& dy, const Tensor& x, int32_t groups,
                                 const Tensor& weight, float offset, double epsilon, int64_t first, int64_t last) {
  const auto run = x.dtype == DType::kFloat32 ? backward_groups<float> : backward_groups<BFloat16>;
  run(dx, dweight, dy, x, groups, weight, offset, epsilon, first, last);
}

}  // namespace tunesmith::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tunesmith::cpu {

HWY_EXPORT(group_rmsnorm_forward_rows);
HWY_EXPORT(group_rmsnorm_backward_rows);

void CpuBackend::group_rmsnorm_forward(Tensor y, Tensor x, int32_t groups, Tensor weight, double offset,
                                       double epsilon) {
  parallel_ranges(threads_, x.rows, x.cols, [&](int64_t first, int64_t last) {
    HWY_DYNAMIC_DISPATCH(group_rmsnorm_forward_rows)(y, x, groups, weight, float(offset), epsilon, first, last);
  });
}

void CpuBackend::group_rmsnorm_backward(Tensor dx, Tensor dweight, Tensor dy, Tensor x, int32_t groups, Tensor weight,
                                        double offset, double epsilon) {
  // Each part sums its rows of dweight apart; the parts are then added in order.
  const int64_t width = weight.size();
  std::vector<float> partial(dweight ? size_t(threads_ * width) : 0);
  parallel_parts(threads_, x.rows, [&](int part, int64_t first, int64_t last) {
    HWY_DYNAMIC_DISPATCH(group_rmsnorm_backward_rows)
    (dx, dweight ? partial.data() + part * width : nullptr, dy, x, groups, weight, float(offset), epsilon, first, last);
  });
  if (!dweight) return;
  float* sum = dweight.as<float>();
  for (int part = 0; part < threads_; ++part)
    for (int64_t i = 0; i < width; ++i) sum[i] += partial[size_t(part * width + i)];
}

}  // namespace tunesmith::cpu
#endif
