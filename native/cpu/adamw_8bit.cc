// AdamW with moments in 8 bits, a block of 256 values at a time: codes to moments, the update, moments to codes. The
// arithmetic rounds every product and sum, as the reference does in float32, so that the codes are the same to the bit.
#include <algorithm>
#include <cmath>

#include "core/dynamic_code.h"
#include "cpu/cpu.h"
#include "cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/adamw_8bit.cc"
#include "hwy/foreach_target.h"  // defines HWY_TARGET for each instruction set

#include "cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tunesmith::cpu::HWY_NAMESPACE {

// m and v come as what the codes stand for relative to the block's largest, and leave as the new moments relative to
// theirs, which is returned through m_largest and v_largest.
void adamw_8bit_block(float* weight, const float* grad, float* m, float* v, float& m_largest, float& v_largest,
                      const AdamWStep& step, int64_t count) {
  const float beta1 = float(step.beta1), beta2 = float(step.beta2);
  const float rest1 = float(1 - step.beta1), rest2 = float(1 - step.beta2), scale = float(step.grad_scale);
  float highest_m = 0, highest_v = 0;
  for_lanes(0, count, [&](auto d, int64_t i) HWY_ATTR {
    const auto g = hn::Mul(load(d, grad + i), hn::Set(d, scale));
    const auto m_before = hn::Mul(load(d, m + i), hn::Set(d, m_largest));
    const auto v_before = hn::Mul(load(d, v + i), hn::Set(d, v_largest));
    const auto mean = hn::Add(hn::Mul(m_before, hn::Set(d, beta1)), hn::Mul(hn::Set(d, rest1), g));
    const auto square = hn::Add(hn::Mul(v_before, hn::Set(d, beta2)), hn::Mul(hn::Mul(hn::Set(d, rest2), g), g));
    store(d, mean, m + i);
    store(d, square, v + i);
    highest_m = std::max(highest_m, hn::GetLane(hn::MaxOfLanes(d, hn::Abs(mean))));
    highest_v = std::max(highest_v, hn::GetLane(hn::MaxOfLanes(d, square)));
  });
  m_largest = highest_m;
  v_largest = highest_v;
  const double root = std::sqrt(step.correction2);
  const float rate = float(step.learning_rate * root / step.correction1), epsilon = float(root * step.epsilon);
  const float keep = float(1 - step.learning_rate * step.weight_decay);
  // A block of zeros is divided by anything.
  const float m_unit = highest_m > 0 ? highest_m : 1, v_unit = highest_v > 0 ? highest_v : 1;
  for_lanes(0, count, [&](auto d, int64_t i) HWY_ATTR {
    const auto mean = load(d, m + i), square = load(d, v + i);
    const auto direction = hn::Div(mean, hn::Add(hn::Sqrt(square), hn::Set(d, epsilon)));
    const auto moved = hn::Sub(load(d, weight + i), hn::Mul(hn::Set(d, rate), direction));
    store(d, hn::Mul(moved, hn::Set(d, keep)), weight + i);
    store(d, hn::Div(mean, hn::Set(d, m_unit)), m + i);
    store(d, hn::Div(square, hn::Set(d, v_unit)), v + i);
  });
}

}  // namespace tunesmith::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tunesmith::cpu {

HWY_EXPORT(adamw_8bit_block);

void CpuBackend::adamw_8bit(Tensor weight, const Moments8& moments, Tensor grad, const AdamWStep& step) {
  const int64_t size = weight.size(), blocks = (size + kDynamicBlock - 1) / kDynamicBlock;
  const DynamicCode &m_code = signed_dynamic_code(), &v_code = unsigned_dynamic_code();
  parallel_ranges(threads_, blocks, 4 * kDynamicBlock, [&](int64_t first, int64_t last) {
    float m[kDynamicBlock], v[kDynamicBlock];
    for (int64_t block = first; block < last; ++block) {
      const int64_t at = block * kDynamicBlock, count = std::min(kDynamicBlock, size - at);
      for (int64_t i = 0; i < count; ++i) m[i] = m_code[moments.m[at + i]];
      for (int64_t i = 0; i < count; ++i) v[i] = v_code[moments.v[at + i]];
      HWY_DYNAMIC_DISPATCH(adamw_8bit_block)
      (weight.as<float>() + at, grad.as<float>() + at, m, v, moments.m_absmax[block], moments.v_absmax[block], step,
       count);
      encode_signed(moments.m + at, m, count);
      encode_unsigned(moments.v + at, v, count);
    }
  });
}

}  // namespace tunesmith::cpu
#endif
