// The gated activation of a GLU feed-forward block (arXiv 2002.05202): act(gate) · up.
#include <cassert>
#include <cmath>

#include "backend/reference/ops.h"

namespace tunesmith::reference {

namespace {

struct Value {
  double value, derivative;
};

// sigmoid is written for both signs so that exp never overflows.
Value silu(double x) {
  const double e = std::exp(-std::abs(x));
  const double sigmoid = x >= 0 ? 1 / (1 + e) : e / (1 + e);
  return {x * sigmoid, sigmoid * (1 + x * (1 - sigmoid))};
}

Value activate(double x, Activation activation) {
  switch (activation) {
    case Activation::kSilu:
      return silu(x);
    default:
      break;
  }
  __builtin_unreachable();
}

}  // namespace

template <class T>
void gated_forward(Tensor out, Tensor gate_up, Activation activation) {
  assert(out.rows == gate_up.rows && gate_up.cols == 2 * out.cols);
  for (int64_t t = 0; t < out.rows; ++t) {
    const T* gate = gate_up.row<T>(t);
    const T* up = gate + out.cols;
    for (int64_t i = 0; i < out.cols; ++i) out.row<T>(t)[i] = T(activate(gate[i], activation).value * up[i]);
  }
}

template <class T>
void gated_backward(Tensor dgate_up, Tensor dout, Tensor gate_up, Activation activation) {
  assert(dout.rows == gate_up.rows && gate_up.cols == 2 * dout.cols);
  assert(dgate_up.rows == gate_up.rows && dgate_up.cols == gate_up.cols);
  const int64_t width = dout.cols;
  for (int64_t t = 0; t < dout.rows; ++t) {
    const T* gradient = dout.row<T>(t);
    for (int64_t i = 0; i < width; ++i) {
      // Both are read before either is written: dgate_up may be gate_up.
      const double gate = gate_up.row<T>(t)[i], up = gate_up.row<T>(t)[width + i];
      const Value act = activate(gate, activation);
      dgate_up.row<T>(t)[i] = T(gradient[i] * up * act.derivative);
      dgate_up.row<T>(t)[width + i] = T(gradient[i] * act.value);
    }
  }
}

#define INSTANTIATE(T)                                        \
  template void gated_forward<T>(Tensor, Tensor, Activation); \
  template void gated_backward<T>(Tensor, Tensor, Tensor, Activation);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace tunesmith::reference
