// AdamW with moments in 8 bits. In float32 the arithmetic is bitsandbytes', operation by operation.
#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>

#include "backend/reference/ops.h"
#include "core/dynamic_code.h"

namespace tunesmith::reference {

template <class T>
void adamw_8bit(Tensor weight, const Moments8& moments, Tensor grad, const AdamWStep& step) {
  assert(weight.contiguous() && grad.contiguous() && grad.size() == weight.size());
  const T beta1 = T(step.beta1), beta2 = T(step.beta2), rest1 = T(1 - step.beta1), rest2 = T(1 - step.beta2);
  const T scale = T(step.grad_scale);
  const T rate = T(step.learning_rate * std::sqrt(step.correction2) / step.correction1);
  const T epsilon = T(std::sqrt(step.correction2) * step.epsilon);
  const T keep = T(1 - step.learning_rate * step.weight_decay);
  const DynamicCode &m_code = signed_dynamic_code(), &v_code = unsigned_dynamic_code();
  std::array<T, kDynamicBlock> m, v;
  for (int64_t first = 0, block = 0; first < weight.size(); first += kDynamicBlock, ++block) {
    const int64_t count = std::min(kDynamicBlock, weight.size() - first);
    T m_largest = 0, v_largest = 0;
    for (int64_t i = 0; i < count; ++i) {
      const T g = grad.as<T>()[first + i] * scale;
      const T m_before = T(m_code[moments.m[first + i]]) * T(moments.m_absmax[block]);
      const T v_before = T(v_code[moments.v[first + i]]) * T(moments.v_absmax[block]);
      m[size_t(i)] = m_before * beta1 + rest1 * g;
      v[size_t(i)] = v_before * beta2 + rest2 * g * g;
      m_largest = std::max(m_largest, std::abs(m[size_t(i)]));
      v_largest = std::max(v_largest, v[size_t(i)]);
    }
    moments.m_absmax[block] = float(m_largest);
    moments.v_absmax[block] = float(v_largest);
    for (int64_t i = 0; i < count; ++i) {
      const T mean = m[size_t(i)], square = v[size_t(i)];
      T& w = weight.as<T>()[first + i];
      w = (w - rate * (mean / (std::sqrt(square) + epsilon))) * keep;
      // A block of zeros would divide by zero: any code stands for 0 then.
      const float relative_m = m_largest > 0 ? float(mean / m_largest) : 0.0f;
      const float relative_v = v_largest > 0 ? float(square / v_largest) : 0.0f;
      encode_signed(moments.m + first + i, &relative_m, 1);
      encode_unsigned(moments.v + first + i, &relative_v, 1);
    }
  }
}

template void adamw_8bit<float>(Tensor, const Moments8&, Tensor, const AdamWStep&);
template void adamw_8bit<double>(Tensor, const Moments8&, Tensor, const AdamWStep&);

}  // namespace tunesmith::reference
