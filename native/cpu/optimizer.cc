// The optimizer's passes over all parameters: one read and one write of everything, so memory sets their speed.
#include <algorithm>
#include <vector>

#include "cpu/cpu.h"
#include "cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/optimizer.cc"
#include "hwy/foreach_target.h"  // defines HWY_TARGET for each instruction set

#include "cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tunesmith::cpu::HWY_NAMESPACE {

double sum_squares_block(const float* x, int64_t n) {
  const hn::ScalableTag<double> d;
  const hn::Rebind<float, decltype(d)> narrow;
  const int64_t lanes = int64_t(hn::Lanes(d));
  auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
  int64_t i = 0;
  const auto add_square = [&](auto& sum) HWY_ATTR {
    const auto wide = hn::PromoteTo(d, hn::LoadU(narrow, x + i));
    sum = hn::MulAdd(wide, wide, sum);
    i += lanes;
  };
  while (i + 4 * lanes <= n) add_square(s0), add_square(s1), add_square(s2), add_square(s3);
  double total = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
  for (; i < n; ++i) total += double(x[i]) * double(x[i]);
  return total;
}

void adamw_range(float* weight, float* m, float* v, const float* grad, const AdamWStep& step, int64_t first,
                 int64_t last) {
  const float beta1 = float(step.beta1), beta2 = float(step.beta2);
  const float rest1 = float(1 - step.beta1), rest2 = float(1 - step.beta2);
  const float keep = float(1 - step.learning_rate * step.weight_decay);
  const float rate = float(step.learning_rate / step.correction1);
  const float unbias = float(1 / step.correction2);
  const float epsilon = float(step.epsilon), scale = float(step.grad_scale);
  for_lanes(first, last, [&](auto d, int64_t i) HWY_ATTR {
    const auto g = hn::Mul(load(d, grad + i), hn::Set(d, scale));
    const auto m1 = hn::MulAdd(load(d, m + i), hn::Set(d, beta1), hn::Mul(g, hn::Set(d, rest1)));
    const auto v1 = hn::MulAdd(load(d, v + i), hn::Set(d, beta2), hn::Mul(hn::Mul(g, g), hn::Set(d, rest2)));
    const auto root = hn::Add(hn::Sqrt(hn::Mul(v1, hn::Set(d, unbias))), hn::Set(d, epsilon));
    const auto w = hn::Mul(load(d, weight + i), hn::Set(d, keep));
    store(d, m1, m + i);
    store(d, v1, v + i);
    store(d, hn::NegMulAdd(hn::Div(m1, root), hn::Set(d, rate), w), weight + i);
  });
}

void lion_range(float* weight, float* m, const float* grad, const LionStep& step, int64_t first, int64_t last) {
  const float beta1 = float(step.beta1), beta2 = float(step.beta2);
  const float rest1 = float((1 - step.beta1) * step.grad_scale), rest2 = float((1 - step.beta2) * step.grad_scale);
  const float keep = float(1 - step.learning_rate * step.weight_decay), rate = float(step.learning_rate);
  for_lanes(first, last, [&](auto d, int64_t i) HWY_ATTR {
    const auto g = load(d, grad + i), before = load(d, m + i);
    const auto direction = hn::MulAdd(before, hn::Set(d, beta1), hn::Mul(g, hn::Set(d, rest1)));
    const auto size = hn::IfThenZeroElse(hn::Eq(direction, hn::Zero(d)), hn::Set(d, rate));
    const auto w = hn::Mul(load(d, weight + i), hn::Set(d, keep));
    store(d, hn::Sub(w, hn::CopySign(size, direction)), weight + i);
    store(d, hn::MulAdd(before, hn::Set(d, beta2), hn::Mul(g, hn::Set(d, rest2))), m + i);
  });
}

void sgd_range(float* weight, float* m, const float* grad, const SgdStep& step, int64_t first, int64_t last) {
  const float keep = float(1 - step.learning_rate * step.weight_decay);
  const float rate = float(step.learning_rate), scale = float(step.grad_scale);
  if (!m) {
    const float scaled_rate = float(step.learning_rate * step.grad_scale);
    for_lanes(first, last, [&](auto d, int64_t i) HWY_ATTR {
      const auto w = hn::Mul(load(d, weight + i), hn::Set(d, keep));
      store(d, hn::NegMulAdd(load(d, grad + i), hn::Set(d, scaled_rate), w), weight + i);
    });
    return;
  }
  const float momentum = float(step.momentum), decay = float(step.weight_decay);
  for_lanes(first, last, [&](auto d, int64_t i) HWY_ATTR {
    const auto w = load(d, weight + i);
    const auto direction = hn::MulAdd(w, hn::Set(d, decay), hn::Mul(load(d, grad + i), hn::Set(d, scale)));
    const auto sum = hn::MulAdd(load(d, m + i), hn::Set(d, momentum), direction);
    store(d, sum, m + i);
    store(d, hn::NegMulAdd(sum, hn::Set(d, rate), w), weight + i);
  });
}

}  // namespace tunesmith::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tunesmith::cpu {

HWY_EXPORT(sum_squares_block);
HWY_EXPORT(adamw_range);
HWY_EXPORT(lion_range);
HWY_EXPORT(sgd_range);

double CpuBackend::sum_squares(Tensor x) {
  constexpr int64_t kBlock = 1 << 16;  // fixed, so that the sum does not depend on the number of threads
  const int64_t size = x.size(), blocks = (size + kBlock - 1) / kBlock;
  const float* data = x.as<float>();
  std::vector<double> partial(static_cast<size_t>(blocks));
  parallel_ranges(threads_, blocks, kBlock, [&](int64_t first, int64_t last) {
    for (int64_t b = first; b < last; ++b)
      partial[size_t(b)] =
          HWY_DYNAMIC_DISPATCH(sum_squares_block)(data + b * kBlock, std::min(kBlock, size - b * kBlock));
  });
  double sum = 0;
  for (const double value : partial) sum += value;
  return sum;
}

void CpuBackend::adamw(Tensor weight, Tensor m, Tensor v, Tensor grad, const AdamWStep& step) {
  parallel_ranges(threads_, weight.size(), 1, [&](int64_t first, int64_t last) {
    HWY_DYNAMIC_DISPATCH(adamw_range)
    (weight.as<float>(), m.as<float>(), v.as<float>(), grad.as<float>(), step, first, last);
  });
}

void CpuBackend::lion(Tensor weight, Tensor m, Tensor grad, const LionStep& step) {
  parallel_ranges(threads_, weight.size(), 1, [&](int64_t first, int64_t last) {
    HWY_DYNAMIC_DISPATCH(lion_range)(weight.as<float>(), m.as<float>(), grad.as<float>(), step, first, last);
  });
}

void CpuBackend::sgd(Tensor weight, Tensor m, Tensor grad, const SgdStep& step) {
  float* momentum = m ? m.as<float>() : nullptr;
  parallel_ranges(threads_, weight.size(), 1, [&](int64_t first, int64_t last) {
    HWY_DYNAMIC_DISPATCH(sgd_range)(weight.as<float>(), momentum, grad.as<float>(), step, first, last);
  });
}

}  // namespace tunesmith::cpu
#endif
