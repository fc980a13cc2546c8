// A weight with its low-rank update (arXiv 2106.09685): the norms of its rows for DoRA (arXiv 2402.09353), and the
// update written into it. A row of the weight is read once; the update exists in registers only.
#include <cmath>
#include <vector>

#include "cpu/cpu.h"
#include "cpu/nf4.h"
#include "cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/lora.cc"
#include "hwy/foreach_target.h"  // defines HWY_TARGET for each instruction set

#include "cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tunesmith::cpu::HWY_NAMESPACE {

// to[k] = gain · (from[k] + scale · Σ_r b[n, r] · a[r, k]); to may be from. factors: room for as many floats as there
// are ranks.
void updated_row(float* to, const float* from, const Tensor& a, const Tensor& b, float scale, float gain,
                 float* factors, int64_t n) {
  for (int64_t r = 0; r < a.rows; ++r) factors[r] = scale * b.row<float>(n)[r];
  for_lanes(0, a.cols, [&](auto d, int64_t k) HWY_ATTR {
    auto sum = hn::Zero(d);
    for (int64_t r = 0; r < a.rows; ++r) sum = hn::MulAdd(hn::Set(d, factors[r]), load(d, a.row<float>(r) + k), sum);
    store(d, hn::Mul(hn::Add(load(d, from + k), sum), hn::Set(d, gain)), to + k);
  });
}

double squares(const float* x, int64_t n) {
  const hn::ScalableTag<double> d;
  const hn::Rebind<float, decltype(d)> narrow;
  const int64_t lanes = int64_t(hn::Lanes(d));
  auto sum = hn::Zero(d);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto wide = hn::PromoteTo(d, hn::LoadU(narrow, x + i));
    sum = hn::MulAdd(wide, wide, sum);
  }
  double total = hn::GetLane(hn::SumOfLanes(d, sum));
  for (; i < n; ++i) total += double(x[i]) * double(x[i]);
  return total;
}

}  // namespace tunesmith::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tunesmith::cpu {

HWY_EXPORT(updated_row);
HWY_EXPORT(squares);

void CpuBackend::lora_norm(Tensor norm, Tensor gain, Tensor magnitude, const LinearWeight& w, int64_t start, Tensor a,
                           Tensor b, double scale) {
  parallel_ranges(threads_, norm.size(), a.cols, [&](int64_t first, int64_t last) {
    std::vector<float> row(size_t(a.cols)), factors(size_t(a.rows));
    for (int64_t n = first; n < last; ++n) {
      const float* from = row.data();
      if (w.quantized.empty())
        from = w.master.row<float>(start + n);
      else
        nf4_rectangle(row.data(), a.cols, w.quantized, start + n, 1, 0, a.cols);
      HWY_DYNAMIC_DISPATCH(updated_row)(row.data(), from, a, b, float(scale), 1.0f, factors.data(), n);
      const double length = std::sqrt(HWY_DYNAMIC_DISPATCH(squares)(row.data(), a.cols));
      norm.as<float>()[n] = float(length);
      if (gain) gain.as<float>()[n] = float(double(magnitude.as<float>()[n]) / length);
    }
  });
}

void CpuBackend::lora_merge(Tensor weight, Tensor a, Tensor b, double scale, Tensor gain) {
  parallel_ranges(threads_, weight.rows, weight.cols, [&](int64_t first, int64_t last) {
    std::vector<float> factors(size_t(a.rows));
    for (int64_t n = first; n < last; ++n) {
      const float factor = gain ? gain.as<float>()[n] : 1.0f;
      HWY_DYNAMIC_DISPATCH(updated_row)
      (weight.row<float>(n), weight.row<float>(n), a, b, float(scale), factor, factors.data(), n);
    }
  });
}

}  // namespace tunesmith::cpu
#endif
