// LayerNorm with fused residual (arXiv 1607.06450): a row stays in the first-level cache between its passes.
#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/cpu.h"
#include "cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/layernorm.cc"
#include "hwy/foreach_target.h"  // defines HWY_TARGET for each instruction set

#include "cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tunesmith::cpu::HWY_NAMESPACE {

template <class C>
HWY_INLINE void normalise(C* to, const float* x, float mean, float rstd, const float* w, const float* b,
                          int64_t width) {
  for_lanes(0, width, [&](auto d, int64_t i) HWY_ATTR {
    const auto normalised = hn::Mul(hn::Sub(load(d, x + i), hn::Set(d, mean)), hn::Set(d, rstd));
    store(d, hn::MulAdd(normalised, load(d, w + i), b ? load(d, b + i) : hn::Zero(d)), to + i);
  });
}

template <class C>
void forward_rows(const Tensor& out, const Tensor& y, const Tensor& statistics, const Tensor& residual,
                  const Tensor& delta, const Tensor& weight, const Tensor& bias, double epsilon, int64_t first,
                  int64_t last) {
  const int64_t width = y.cols;
  for (int64_t t = first; t < last; ++t) {
    const float* x = residual.row<float>(t);
    if (delta) {
      const float* in = x;
      float* sum = out.row<float>(t);
      const C* add = delta.row<C>(t);
      for_lanes(0, width,
                [&](auto d, int64_t i) HWY_ATTR { store(d, hn::Add(load(d, in + i), load(d, add + i)), sum + i); });
      x = sum;
    }
    const float sum = sum_over(width, [&](auto d, int64_t i) HWY_ATTR { return load(d, x + i); });
    const float mean = float(double(sum) / double(width));
    const float squares = sum_over(width, [&](auto d, int64_t i) HWY_ATTR {
      const auto centred = hn::Sub(load(d, x + i), hn::Set(d, mean));
      return hn::Mul(centred, centred);
    });
    const float rstd = float(1.0 / std::sqrt(double(squares) / double(width) + epsilon));
    statistics.row<float>(0)[t] = mean;
    statistics.row<float>(1)[t] = rstd;
    normalise(y.row<C>(t), x, mean, rstd, weight.as<float>(), bias.as<float>(), width);
  }
}

template <class C>
void apply_rows(const Tensor& y, const Tensor& x, const Tensor& statistics, const Tensor& weight, const Tensor& bias,
                int64_t first, int64_t last) {
  for (int64_t t = first; t < last; ++t)
    normalise(y.row<C>(t), x.row<float>(t), statistics.row<float>(0)[t], statistics.row<float>(1)[t],
              weight.as<float>(), bias.as<float>(), y.cols);
}

// Rows whose part of dweight and dbias is summed in registers.
constexpr int64_t kRowGroup = 16;

// dparameters [2, H]: dweight, dbias; or null.
template <class C>
void backward_rows(const Tensor& dx, const Tensor& dx_compute, float* dparameters, const Tensor& dy, const Tensor& x,
                   const Tensor& statistics, const Tensor& weight, int64_t first, int64_t last) {
  const int64_t width = dx.cols;
  const float* w = weight.as<float>();
  float* dweight = dparameters;
  float* dbias = dparameters + width;
  const auto normalised = [&](auto d, int64_t t, int64_t i) HWY_ATTR {
    const auto centred = hn::Sub(load(d, x.row<float>(t) + i), hn::Set(d, statistics.row<float>(0)[t]));
    return hn::Mul(centred, hn::Set(d, statistics.row<float>(1)[t]));
  };
  for (int64_t group = first; group < last; group += kRowGroup) {
    const int64_t end = std::min(group + kRowGroup, last);
    const int64_t summed = dparameters ? width : 0;
    for_lanes(0, summed, [&](auto d, int64_t i) HWY_ATTR {
      auto weights = hn::Zero(d), biases = weights;
      for (int64_t t = group; t < end; ++t) {
        const auto gradient = load(d, dy.row<C>(t) + i);
        weights = hn::MulAdd(gradient, normalised(d, t, i), weights);
        biases = hn::Add(biases, gradient);
      }
      store(d, hn::Add(load(d, dweight + i), weights), dweight + i);
      store(d, hn::Add(load(d, dbias + i), biases), dbias + i);
    });
    for (int64_t t = group; t < end; ++t) {
      const C* grad = dy.row<C>(t);
      float* sum = dx.row<float>(t);
      C* copy = dx_compute ? dx_compute.row<C>(t) : nullptr;
      const auto weighted = [&](auto d, int64_t i) HWY_ATTR { return hn::Mul(load(d, grad + i), load(d, w + i)); };
      const float of_g = float(double(sum_over(width, weighted)) / double(width));
      const float products =
          sum_over(width, [&](auto d, int64_t i) HWY_ATTR { return hn::Mul(weighted(d, i), normalised(d, t, i)); });
      const float of_product = float(double(products) / double(width));
      const float rstd = statistics.row<float>(1)[t];
      for_lanes(0, width, [&](auto d, int64_t i) HWY_ATTR {
        const auto centred = hn::Sub(weighted(d, i), hn::Set(d, of_g));
        const auto pulled = hn::NegMulAdd(normalised(d, t, i), hn::Set(d, of_product), centred);
        const auto v = hn::MulAdd(pulled, hn::Set(d, rstd), load(d, sum + i));
        store(d, v, sum + i);
        if (copy) store(d, v, copy + i);
      });
    }
  }
}

void layernorm_forward_rows(const Tensor& out, const Tensor& y, const Tensor& statistics, const Tensor& residual,
                            const Tensor& delta, const Tensor& weight, const Tensor& bias, double epsilon,
                            int64_t first, int64_t last) {
  const auto run = y.dtype == DType::kFloat32 ? forward_rows<float> : forward_rows<BFloat16>;
  run(out, y, statistics, residual, delta, weight, bias, epsilon, first, last);
}

void layernorm_apply_rows(const Tensor& y, const Tensor& x, const Tensor& statistics, const Tensor& weight,
                          const Tensor& bias, int64_t first, int64_t last) {
  const auto run = y.dtype == DType::kFloat32 ? apply_rows<float> : apply_rows<BFloat16>;
  run(y, x, statistics, weight, bias, first, last);
}

void layernorm_backward_rows(const Tensor& dx, const Tensor& dx_compute, float* dparameters, const Tensor& dy,
                             const Tensor& x, const Tensor& statistics, const Tensor& weight, int64_t first,
                             int64_t last) {
  const auto run = dy.dtype == DType::kFloat32 ? backward_rows<float> : backward_rows<BFloat16>;
  run(dx, dx_compute, dparameters, dy, x, statistics, weight, first, last);
}

}  // namespace tunesmith::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tunesmith::cpu {

HWY_EXPORT(layernorm_forward_rows);
HWY_EXPORT(layernorm_apply_rows);
HWY_EXPORT(layernorm_backward_rows);

void CpuBackend::layernorm_forward(Tensor out, Tensor y, Tensor statistics, Tensor residual, Tensor delta,
                                   Tensor weight, Tensor bias, double epsilon) {
  parallel_ranges(threads_, y.rows, y.cols, [&](int64_t first, int64_t last) {
    HWY_DYNAMIC_DISPATCH(layernorm_forward_rows)
    (out, y, statistics, residual, delta, weight, bias, epsilon, first, last);
  });
}

void CpuBackend::layernorm_apply(Tensor y, Tensor x, Tensor statistics, Tensor weight, Tensor bias) {
  parallel_ranges(threads_, y.rows, y.cols, [&](int64_t first, int64_t last) {
    HWY_DYNAMIC_DISPATCH(layernorm_apply_rows)(y, x, statistics, weight, bias, first, last);
  });
}

void CpuBackend::layernorm_backward(Tensor dx, Tensor dx_compute, Tensor dweight, Tensor dbias, Tensor dy, Tensor x,
                                    Tensor statistics, Tensor weight) {
  // Each part sums its rows of dweight and dbias apart; the parts are then added in order.
  const int64_t width = dx.cols;
  const bool sums = dweight || dbias;
  std::vector<float> partial(sums ? size_t(threads_ * 2 * width) : 0);
  parallel_parts(threads_, dx.rows, [&](int part, int64_t first, int64_t last) {
    HWY_DYNAMIC_DISPATCH(layernorm_backward_rows)
    (dx, dx_compute, sums ? partial.data() + part * 2 * width : nullptr, dy, x, statistics, weight, first, last);
  });
  const auto add = [&](Tensor to, int64_t row) {
    for (int part = 0; to && part < threads_; ++part)
      for (int64_t i = 0; i < width; ++i) to.as<float>()[i] += partial[size_t((2 * part + row) * width + i)];
  };
  add(dweight, 0);
  add(dbias, 1);
}

}  // namespace tunesmith::cpu
#endif
