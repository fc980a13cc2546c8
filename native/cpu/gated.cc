// Gated activation of the MLP (arXiv 2002.05202): act(gate) · up, with both halves in one buffer.
#include "cpu/cpu.h"
#include "cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/gated.cc"
#include "hwy/foreach_target.h"  // defines HWY_TARGET for each instruction set

#include "cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tunesmith::cpu::HWY_NAMESPACE {

template <class D, class V>
HWY_INLINE V sigmoid(D d, V x) {
  const auto one = hn::Set(d, 1.0f);
  return hn::Div(one, hn::Add(one, exp(d, hn::Neg(x))));
}

template <class C>
void silu_forward(const Tensor& out, const Tensor& gate_up, int64_t first, int64_t last) {
  const int64_t width = out.cols;
  for (int64_t t = first; t < last; ++t) {
    const C* gate = gate_up.row<C>(t);
    const C* up = gate + width;
    C* to = out.row<C>(t);
    for_lanes(0, width, [&](auto d, int64_t i) HWY_ATTR {
      const auto g = load(d, gate + i);
      store(d, hn::Mul(hn::Mul(g, sigmoid(d, g)), load(d, up + i)), to + i);
    });
  }
}

template <class C>
void silu_backward(const Tensor& dgate_up, const Tensor& dout, const Tensor& gate_up, int64_t first, int64_t last) {
  const int64_t width = dout.cols;
  for (int64_t t = first; t < last; ++t) {
    const C* gate = gate_up.row<C>(t);
    const C* up = gate + width;
    const C* grad = dout.row<C>(t);
    C* dgate = dgate_up.row<C>(t);
    C* dup = dgate + width;
    for_lanes(0, width, [&](auto d, int64_t i) HWY_ATTR {
      const auto g = load(d, gate + i), u = load(d, up + i), dy = load(d, grad + i);
      const auto s = sigmoid(d, g);
      // d(g · s(g))/dg = s + g · s · (1 - s)
      const auto slope = hn::MulAdd(hn::Mul(g, s), hn::Sub(hn::Set(d, 1.0f), s), s);
      store(d, hn::Mul(hn::Mul(dy, u), slope), dgate + i);
      store(d, hn::Mul(dy, hn::Mul(g, s)), dup + i);
    });
  }
}

void gated_forward_rows(const Tensor& out, const Tensor& gate_up, int64_t first, int64_t last) {
  const auto run = out.dtype == DType::kFloat32 ? silu_forward<float> : silu_forward<BFloat16>;
  run(out, gate_up, first, last);
}

void gated_backward_rows(const Tensor& dgate_up, const Tensor& dout, const Tensor& gate_up, int64_t first,
                         int64_t last) {
  const auto run = dout.dtype == DType::kFloat32 ? silu_backward<float> : silu_backward<BFloat16>;
  run(dgate_up, dout, gate_up, first, last);
}

}  // namespace tunesmith::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tunesmith::cpu {

HWY_EXPORT(gated_forward_rows);
HWY_EXPORT(gated_backward_rows);

void CpuBackend::gated_forward(Tensor out, Tensor gate_up, Activation) {
  parallel_ranges(threads_, out.rows, out.cols, [&](int64_t first, int64_t last) {
    HWY_DYNAMIC_DISPATCH(gated_forward_rows)(out, gate_up, first, last);
  });
}

void CpuBackend::gated_backward(Tensor dgate_up, Tensor dout, Tensor gate_up, Activation) {
  parallel_ranges(threads_, dout.rows, dout.cols, [&](int64_t first, int64_t last) {
    HWY_DYNAMIC_DISPATCH(gated_backward_rows)(dgate_up, dout, gate_up, first, last);
  });
}

}  // namespace tunesmith::cpu
#endif
