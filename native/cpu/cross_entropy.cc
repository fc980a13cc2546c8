// Softmax cross-entropy with its gradient in place: a row of logits is read from memory once; the second and third pass
// find it in the caches.
#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/cpu.h"
#include "cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/cross_entropy.cc"
#include "hwy/foreach_target.h"  // defines HWY_TARGET for each instruction set

#include "cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tunesmith::cpu::HWY_NAMESPACE {

// Largest of x[0, n). A NaN may go unnoticed here; the sum of exponentials carries it to the loss.
HWY_INLINE float largest(const float* x, int64_t n) {
  const FloatTag d;
  const int64_t lanes = int64_t(hn::Lanes(d));
  auto m0 = hn::Set(d, -std::numeric_limits<float>::infinity()), m1 = m0, m2 = m0, m3 = m0;
  int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    m0 = hn::Max(m0, load(d, x + i));
    m1 = hn::Max(m1, load(d, x + i + lanes));
    m2 = hn::Max(m2, load(d, x + i + 2 * lanes));
    m3 = hn::Max(m3, load(d, x + i + 3 * lanes));
  }
  for (; i + lanes <= n; i += lanes) m0 = hn::Max(m0, load(d, x + i));
  float m = hn::GetLane(hn::MaxOfLanes(d, hn::Max(hn::Max(m0, m1), hn::Max(m2, m3))));
  for (; i < n; ++i) m = std::max(m, x[i]);
  return m;
}

// Σ e^(x - shift) over x[0, n).
HWY_INLINE float sum_exp(const float* x, int64_t n, float shift) {
  const FloatTag d;
  const int64_t lanes = int64_t(hn::Lanes(d));
  const auto m = hn::Set(d, shift);
  auto s0 = hn::Zero(d), s1 = s0;
  int64_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    s0 = hn::Add(s0, exp(d, hn::Sub(load(d, x + i), m)));
    s1 = hn::Add(s1, exp(d, hn::Sub(load(d, x + i + lanes), m)));
  }
  for (; i + lanes <= n; i += lanes) s0 = hn::Add(s0, exp(d, hn::Sub(load(d, x + i), m)));
  float sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(s0, s1)));
  const OneFloat one;
  for (; i < n; ++i) sum += hn::GetLane(exp(one, hn::Sub(load(one, x + i), hn::Set(one, shift))));
  return sum;
}

// Largest logit so far, and the sum of e^(x - maximum).
struct RunningSum {
  float maximum;
  double sum;

  void add(const float* x, int64_t n) {
    constexpr int64_t kChunk = 2048;  // logits between rescalings: 8 KiB
    for (int64_t start = 0; start < n; start += kChunk) {
      const int64_t count = std::min(kChunk, n - start);
      const float chunk_maximum = largest(x + start, count);
      if (chunk_maximum > maximum) {
        sum *= std::exp(double(maximum) - double(chunk_maximum));
        maximum = chunk_maximum;
      }
      sum += double(sum_exp(x + start, count, maximum));
    }
  }
};

HWY_INLINE double sum_of(const float* x, int64_t n) {
  constexpr int64_t kChunk = 1024;  // float32 sums of a chunk, float64 sums of chunks
  double total = 0;
  for (int64_t first = 0; first < n; first += kChunk) {
    const FloatTag d;
    const int64_t lanes = int64_t(hn::Lanes(d)), last = std::min(n, first + kChunk);
    auto sum = hn::Zero(d);
    int64_t i = first;
    for (; i + lanes <= last; i += lanes) sum = hn::Add(sum, load(d, x + i));
    total += double(hn::GetLane(hn::SumOfLanes(d, sum)));
    for (; i < last; ++i) total += double(x[i]);
  }
  return total;
}

template <class C>
void loss_rows(const Tensor& logits, const Tensor& dlogits, const Tensor& loss, int32_t* correct,
               const int32_t* targets, const Tensor& weights, double scale, const Objective& objective, int64_t first,
               int64_t last) {
  const double smoothing = objective.label_smoothing, z_loss = objective.z_loss;
  const int64_t width = logits.cols;
  for (int64_t r = first; r < last; ++r) {
    const float* x = logits.row<float>(r);
    const int32_t target = targets[r];
    const float target_logit = x[target];
    // The target is kept out of the sum: of a target that is all but certain, the others are the whole loss.
    RunningSum others{target_logit, 0};
    others.add(x, target);
    others.add(x + target + 1, width - target - 1);
    const float maximum = others.maximum;
    const double below = double(target_logit) - double(maximum), target_share = std::exp(below);
    const double sum = others.sum + target_share;
    const double nll = below == 0 ? std::log1p(others.sum) : std::log(sum) - below;
    const double lse = std::log(sum) + double(maximum), p = target_share / sum;
    double value = objective.dft ? p * nll : (1 - smoothing) * nll + z_loss * lse * lse;
    if (smoothing > 0) value += smoothing * (lse - sum_of(x, width) / double(width));
    loss.as<float>()[r] = float(value);
    correct[r] = target_logit == maximum && std::none_of(x, x + target, [&](float v) { return v == maximum; });
    if (!dlogits) continue;
    const double weight = double(weights.as<float>()[r]) * scale * (objective.dft ? p : 1);
    const float factor = float(weight * (1 + 2 * z_loss * lse) / sum);
    const float offset = float(weight * smoothing / double(width));
    C* grad = dlogits.row<C>(r);
    for_lanes(0, width, [&](auto d, int64_t i) HWY_ATTR {
      const auto p = exp(d, hn::Sub(load(d, x + i), hn::Set(d, maximum)));
      store(d, hn::MulSub(p, hn::Set(d, factor), hn::Set(d, offset)), grad + i);
    });
    const double missed = others.sum / sum - smoothing * (1 - 1 / double(width)) - 2 * z_loss * lse * p;
    grad[target] = C(float(-weight * missed));
  }
}

void cross_entropy_rows(const Tensor& logits, const Tensor& dlogits, const Tensor& loss, int32_t* correct,
                        const int32_t* targets, const Tensor& weights, double scale, const Objective& objective,
                        int64_t first, int64_t last) {
  const auto run = dlogits.dtype == DType::kBFloat16 ? loss_rows<BFloat16> : loss_rows<float>;
  run(logits, dlogits, loss, correct, targets, weights, scale, objective, first, last);
}

}  // namespace tunesmith::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tunesmith::cpu {

HWY_EXPORT(cross_entropy_rows);

void CpuBackend::cross_entropy(Tensor logits, Tensor dlogits, Tensor loss, int32_t* correct, const int32_t* targets,
                               Tensor weights, double scale, const Objective& objective) {
  const int64_t in_stride = logits.stride * int64_t(size_of(logits.dtype));
  const int64_t out_stride = dlogits.stride * int64_t(size_of(dlogits.dtype));
  const int64_t out_bytes = dlogits.cols * int64_t(size_of(dlogits.dtype));
  const bool overlapping = dlogits && dlogits.data == logits.data && out_stride < in_stride;
  for (int64_t first = 0, last; first < logits.rows; first = last) {
    last = logits.rows;
    // Gradients packed tighter than the logits they replace: rows [first, last) may go in any order only while the
    // last one's gradient ends before the first one's logits begin. The runs double in length.
    if (overlapping) last = std::clamp((first * in_stride - out_bytes) / out_stride + 1, first + 1, logits.rows);
    parallel_ranges(threads_, last - first, logits.cols, [&](int64_t begin, int64_t end) {
      HWY_DYNAMIC_DISPATCH(cross_entropy_rows)
      (logits, dlogits, loss, correct, targets, weights, scale, objective, first + begin, first + end);
    });
  }
}

}  // namespace tunesmith::cpu
#endif
