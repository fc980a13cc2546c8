// Gradient norm and the update rules.
#include <cassert>
#include <cmath>

#include "backend/reference/ops.h"

namespace tunesmith::reference {

template <class T>
double sum_squares(Tensor x) {
  assert(x.contiguous());
  double sum = 0;
  for (int64_t i = 0; i < x.size(); ++i) sum += double(x.as<T>()[i]) * x.as<T>()[i];
  return sum;
}

template <class T>
void adamw(Tensor weight, Tensor m, Tensor v, Tensor grad, const AdamWStep& step) {
  assert(weight.contiguous() && m.contiguous() && v.contiguous() && grad.contiguous());
  assert(m.size() == weight.size() && v.size() == weight.size() && grad.size() == weight.size());
  for (int64_t i = 0; i < weight.size(); ++i) {
    const double w = weight.as<T>()[i];
    const double g = grad.as<T>()[i] * step.grad_scale;
    const double mean = step.beta1 * m.as<T>()[i] + (1 - step.beta1) * g;
    const double square = step.beta2 * v.as<T>()[i] + (1 - step.beta2) * g * g;
    const double direction = (mean / step.correction1) / (std::sqrt(square / step.correction2) + step.epsilon);
    m.as<T>()[i] = T(mean);
    v.as<T>()[i] = T(square);
    weight.as<T>()[i] = T(w - step.learning_rate * step.weight_decay * w - step.learning_rate * direction);
  }
}

template <class T>
void lion(Tensor weight, Tensor m, Tensor grad, const LionStep& step) {
  assert(weight.contiguous() && m.contiguous() && grad.contiguous());
  assert(m.size() == weight.size() && grad.size() == weight.size());
  for (int64_t i = 0; i < weight.size(); ++i) {
    const double w = weight.as<T>()[i], before = m.as<T>()[i];
    const double g = grad.as<T>()[i] * step.grad_scale;
    const double direction = step.beta1 * before + (1 - step.beta1) * g;
    const double sign = direction > 0 ? 1 : direction < 0 ? -1 : 0;
    weight.as<T>()[i] = T(w - step.learning_rate * step.weight_decay * w - step.learning_rate * sign);
    m.as<T>()[i] = T(step.beta2 * before + (1 - step.beta2) * g);
  }
}

template <class T>
void sgd(Tensor weight, Tensor m, Tensor grad, const SgdStep& step) {
  assert(weight.contiguous() && grad.contiguous() && grad.size() == weight.size());
  assert(!m || (m.contiguous() && m.size() == weight.size()));
  for (int64_t i = 0; i < weight.size(); ++i) {
    const double w = weight.as<T>()[i];
    double direction = grad.as<T>()[i] * step.grad_scale + step.weight_decay * w;
    if (m) {
      direction += step.momentum * m.as<T>()[i];
      m.as<T>()[i] = T(direction);
    }
    weight.as<T>()[i] = T(w - step.learning_rate * direction);
  }
}

#define INSTANTIATE(T)                                                      \
  template double sum_squares<T>(Tensor);                                   \
  template void adamw<T>(Tensor, Tensor, Tensor, Tensor, const AdamWStep&); \
  template void lion<T>(Tensor, Tensor, Tensor, const LionStep&);           \
  template void sgd<T>(Tensor, Tensor, Tensor, const SgdStep&);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace tunesmith::reference
