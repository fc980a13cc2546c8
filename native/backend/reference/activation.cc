// The activation of the MLP, plain or gated (arXiv 2002.05202): act(gate) · up.
#include <cassert>
#include <cmath>

#include "backend/reference/ops.h"

namespace tunesmith::reference {

namespace {

struct Value {
  double value, derivative;
};

// Written for both signs so that exp never overflows.
double sigmoid(double x) {
  const double e = std::exp(-std::abs(x));
  return x >= 0 ? 1 / (1 + e) : e / (1 + e);
}

Value silu(double x) {
  const double s = sigmoid(x);
  return {x * s, s * (1 + x * (1 - s))};
}

// Through erfc, which keeps its digits where Φ is small.
Value gelu(double x) {
  const double normal = 0.5 * std::erfc(-x * M_SQRT1_2);  // Φ(x)
  const double density = std::exp(-0.5 * x * x) * (M_SQRT1_2 * M_2_SQRTPI / 2);
  return {x * normal, normal + x * density};
}

// (1 + tanh u) / 2 is sigmoid(2u), which keeps its digits where it is small.
Value gelu_tanh(double x) {
  constexpr double kLinear = 2 * M_SQRT1_2 * M_2_SQRTPI, kCubic = 0.044715 * kLinear;  // 2 √(2/π)
  const double s = sigmoid(kLinear * x + kCubic * x * x * x);
  return {x * s, s + x * s * (1 - s) * (kLinear + 3 * kCubic * x * x)};
}

Value relu(double x) { return x > 0 ? Value{x, 1} : Value{std::isnan(x) ? x : 0, 0}; }

Value activate(double x, Activation activation) {
  switch (activation) {
    case Activation::kSilu:
      return silu(x);
    case Activation::kGelu:
      return gelu(x);
    case Activation::kGeluTanh:
      return gelu_tanh(x);
    case Activation::kRelu:
      return relu(x);
  }
  __builtin_unreachable();
}

}  // namespace

template <class T>
void activation_forward(Tensor out, Tensor in, Activation activation) {
  const int64_t width = out.cols;
  const bool gated = in.cols == 2 * width;
  assert(out.rows == in.rows && (gated || in.cols == width));
  for (int64_t t = 0; t < out.rows; ++t)
    for (int64_t i = 0; i < width; ++i) {
      const double act = activate(in.row<T>(t)[i], activation).value;
      out.row<T>(t)[i] = T(gated ? act * in.row<T>(t)[width + i] : act);
    }
}

template <class T>
void activation_backward(Tensor din, Tensor dout, Tensor in, Activation activation) {
  const int64_t width = dout.cols;
  const bool gated = in.cols == 2 * width;
  assert(dout.rows == in.rows && (gated || in.cols == width) && din.rows == in.rows && din.cols == in.cols);
  for (int64_t t = 0; t < dout.rows; ++t) {
    const T* gradient = dout.row<T>(t);
    for (int64_t i = 0; i < width; ++i) {
      // Both are read before either is written: din may be in.
      const double gate = in.row<T>(t)[i], up = gated ? double(in.row<T>(t)[width + i]) : 1;
      const Value act = activate(gate, activation);
      din.row<T>(t)[i] = T(gradient[i] * up * act.derivative);
      if (gated) din.row<T>(t)[width + i] = T(gradient[i] * act.value);
    }
  }
}

#define INSTANTIATE(T)                                             \
  template void activation_forward<T>(Tensor, Tensor, Activation); \
  template void activation_backward<T>(Tensor, Tensor, Tensor, Activation);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace tunesmith::reference
