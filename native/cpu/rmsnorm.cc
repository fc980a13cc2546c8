// RMSNorm with fused residual (arXiv 1910.07467): a row stays in the first-level cache between its two passes.
#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "cpu/cpu.h"
#include "cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/rmsnorm.cc"
#include "hwy/foreach_target.h"  // defines HWY_TARGET for each instruction set

#include "cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tunesmith::cpu::HWY_NAMESPACE {

// offset + weight; without one, weights are read as they are.
template <bool kOffset, class D>
HWY_INLINE hn::Vec<D> factor_of(D d, const float* weight, [[maybe_unused]] float offset, int64_t i) {
  if constexpr (kOffset) return hn::Add(load(d, weight + i), hn::Set(d, offset));
  return load(d, weight + i);
}

template <class C, bool kOffset>
void forward_rows(const Tensor& out, const Tensor& y, const Tensor& rstd, const Tensor& residual, const Tensor& delta,
                  const Tensor& weight, float offset, double epsilon, int64_t first, int64_t last) {
  const int64_t width = y.cols;
  const float* w = weight.as<float>();
  for (int64_t t = first; t < last; ++t) {
    const float* x = residual.row<float>(t);
    float squares;
    if (delta) {
      const float* in = x;
      float* sum = out.row<float>(t);
      const C* add = delta.row<C>(t);
      squares = sum_over(width, [&](auto d, int64_t i) HWY_ATTR {
        const auto v = hn::Add(load(d, in + i), load(d, add + i));
        store(d, v, sum + i);
        return hn::Mul(v, v);
      });
      x = sum;
    } else {
      squares = sum_over(width, [&](auto d, int64_t i) HWY_ATTR {
        const auto v = load(d, x + i);
        return hn::Mul(v, v);
      });
    }
    const float r = float(1.0 / std::sqrt(double(squares) / double(width) + epsilon));
    rstd.as<float>()[t] = r;
    C* to = y.row<C>(t);
    for_lanes(0, width, [&](auto d, int64_t i) HWY_ATTR {
      const auto factor = factor_of<kOffset>(d, w, offset, i);
      store(d, hn::Mul(hn::Mul(load(d, x + i), hn::Set(d, r)), factor), to + i);
    });
  }
}

template <class C, bool kOffset>
void apply_rows(const Tensor& y, const Tensor& x, const Tensor& rstd, const Tensor& weight, float offset, int64_t first,
                int64_t last) {
  const float* w = weight.as<float>();
  for (int64_t t = first; t < last; ++t) {
    const float r = rstd.as<float>()[t];
    const float* from = x.row<float>(t);
    C* to = y.row<C>(t);
    for_lanes(0, y.cols, [&](auto d, int64_t i) HWY_ATTR {
      const auto factor = factor_of<kOffset>(d, w, offset, i);
      store(d, hn::Mul(hn::Mul(load(d, from + i), hn::Set(d, r)), factor), to + i);
    });
  }
}

// Rows whose part of dweight is summed in registers.
constexpr int64_t kRowGroup = 16;

template <class C, bool kOffset>
void backward_rows(const Tensor& dx, const Tensor& dx_compute, float* dweight, const Tensor& dy, const Tensor& x,
                   const Tensor& rstd, const Tensor& weight, float offset, int64_t first, int64_t last) {
  const int64_t width = dx.cols;
  const float* w = weight.as<float>();
  for (int64_t group = first; group < last; group += kRowGroup) {
    const int64_t end = std::min(group + kRowGroup, last);
    const int64_t summed = dweight ? width : 0;
    for_lanes(0, summed, [&](auto d, int64_t i) HWY_ATTR {
      auto sum = hn::Zero(d);
      for (int64_t t = group; t < end; ++t) {
        const auto normalised = hn::Mul(load(d, x.row<float>(t) + i), hn::Set(d, rstd.as<float>()[t]));
        sum = hn::MulAdd(load(d, dy.row<C>(t) + i), normalised, sum);
      }
      store(d, hn::Add(load(d, dweight + i), sum), dweight + i);
    });
    for (int64_t t = group; t < end; ++t) {
      const float r = rstd.as<float>()[t];
      const float* in = x.row<float>(t);
      const C* grad = dy.row<C>(t);
      float* sum = dx.row<float>(t);
      C* copy = dx_compute ? dx_compute.row<C>(t) : nullptr;
      const float dot = sum_over(width, [&](auto d, int64_t i) HWY_ATTR {
        const auto factor = factor_of<kOffset>(d, w, offset, i);
        return hn::Mul(hn::Mul(load(d, grad + i), factor), load(d, in + i));
      });
      const float pull = float(double(r) * double(r) * double(dot) / double(width));
      for_lanes(0, width, [&](auto d, int64_t i) HWY_ATTR {
        const auto g = hn::Mul(load(d, grad + i), factor_of<kOffset>(d, w, offset, i));
        const auto centred = hn::NegMulAdd(load(d, in + i), hn::Set(d, pull), g);
        const auto v = hn::MulAdd(centred, hn::Set(d, r), load(d, sum + i));
        store(d, v, sum + i);
        if (copy) store(d, v, copy + i);
      });
    }
  }
}

// Calls run with a value of the compute type, and whether there is an offset as a constant.
template <class Run>
void with_type(DType type, float offset, const Run& run) {
  if (type == DType::kFloat32)
    offset == 0 ? run(float(), std::false_type()) : run(float(), std::true_type());
  else
    offset == 0 ? run(BFloat16(), std::false_type()) : run(BFloat16(), std::true_type());
}

void rmsnorm_forward_rows(const Tensor& out, const Tensor& y, const Tensor& rstd, const Tensor& residual,
                          const Tensor& delta, const Tensor& weight, float offset, double epsilon, int64_t first,
                          int64_t last) {
  with_type(y.dtype, offset, [&](auto type, auto has_offset) {
    forward_rows<decltype(type), has_offset>(out, y, rstd, residual, delta, weight, offset, epsilon, first, last);
  });
}

void rmsnorm_apply_rows(const Tensor& y, const Tensor& x, const Tensor& rstd, const Tensor& weight, float offset,
                        int64_t first, int64_t last) {
  with_type(y.dtype, offset, [&](auto type, auto has_offset) {
    apply_rows<decltype(type), has_offset>(y, x, rstd, weight, offset, first, last);
  });
}

void rmsnorm_backward_rows(const Tensor& dx, const Tensor& dx_compute, float* dweight, const Tensor& dy,
                           const Tensor& x, const Tensor& rstd, const Tensor& weight, float offset, int64_t first,
                           int64_t last) {
  with_type(dy.dtype, offset, [&](auto type, auto has_offset) {
    backward_rows<decltype(type), has_offset>(dx, dx_compute, dweight, dy, x, rstd, weight, offset, first, last);
  });
}

}  // namespace tunesmith::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tunesmith::cpu {

HWY_EXPORT(rmsnorm_forward_rows);
HWY_EXPORT(rmsnorm_apply_rows);
HWY_EXPORT(rmsnorm_backward_rows);

void CpuBackend::rmsnorm_forward(Tensor out, Tensor y, Tensor rstd, Tensor residual, Tensor delta, Tensor weight,
                                 double offset, double epsilon) {
  parallel_ranges(threads_, y.rows, y.cols, [&](int64_t first, int64_t last) {
    HWY_DYNAMIC_DISPATCH(rmsnorm_forward_rows)
    (out, y, rstd, residual, delta, weight, float(offset), epsilon, first, last);
  });
}

void CpuBackend::rmsnorm_apply(Tensor y, Tensor x, Tensor rstd, Tensor weight, double offset) {
  parallel_ranges(threads_, y.rows, y.cols, [&](int64_t first, int64_t last) {
    HWY_DYNAMIC_DISPATCH(rmsnorm_apply_rows)(y, x, rstd, weight, float(offset), first, last);
  });
}

void CpuBackend::rmsnorm_backward(Tensor dx, Tensor dx_compute, Tensor dweight, Tensor dy, Tensor x, Tensor rstd,
                                  Tensor weight, double offset) {
  // Each part sums its rows of dweight apart; the parts are then added in order.
  const int64_t width = dx.cols;
  std::vector<float> partial(dweight ? size_t(threads_ * width) : 0);
  parallel_parts(threads_, dx.rows, [&](int part, int64_t first, int64_t last) {
    HWY_DYNAMIC_DISPATCH(rmsnorm_backward_rows)
    (dx, dx_compute, dweight ? partial.data() + part * width : nullptr, dy, x, rstd, weight, float(offset), first,
     last);
  });
  if (!dweight) return;
  float* sum = dweight.as<float>();
  for (int part = 0; part < threads_; ++part)
    for (int64_t i = 0; i < width; ++i) sum[i] += partial[size_t(part * width + i)];
}

}  // namespace tunesmith::cpu
#endif
