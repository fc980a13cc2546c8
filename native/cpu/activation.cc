// Activation of the MLP: plain, or gated (arXiv 2002.05202) with both halves in one buffer.
#include "cpu/cpu.h"
#include "cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/activation.cc"
#include "hwy/foreach_target.h"  // defines HWY_TARGET for each instruction set

#include "cpu/activation-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tunesmith::cpu::HWY_NAMESPACE {

template <class Act, class C>
void forward_rows(const Tensor& out, const Tensor& in, int64_t first, int64_t last) {
  const int64_t width = out.cols;
  const bool gated = in.cols != width;
  for (int64_t t = first; t < last; ++t) {
    const C* gate = in.row<C>(t);
    const C* up = gate + width;
    C* to = out.row<C>(t);
    if (gated)
      for_lanes(0, width, [&](auto d, int64_t i) HWY_ATTR {
        store(d, hn::Mul(Act::value(d, load(d, gate + i)), load(d, up + i)), to + i);
      });
    else
      for_lanes(0, width, [&](auto d, int64_t i) HWY_ATTR { store(d, Act::value(d, load(d, gate + i)), to + i); });
  }
}

template <class Act, class C>
void backward_rows(const Tensor& din, const Tensor& dout, const Tensor& in, int64_t first, int64_t last) {
  const int64_t width = dout.cols;
  const bool gated = in.cols != width;
  for (int64_t t = first; t < last; ++t) {
    const C* gate = in.row<C>(t);
    const C* up = gate + width;
    const C* grad = dout.row<C>(t);
    C* dgate = din.row<C>(t);
    C* dup = dgate + width;
    if (gated)
      for_lanes(0, width, [&](auto d, int64_t i) HWY_ATTR {
        const auto g = load(d, gate + i), u = load(d, up + i), dy = load(d, grad + i);
        const auto act = Act::both(d, g);
        store(d, hn::Mul(hn::Mul(dy, u), act.slope), dgate + i);
        store(d, hn::Mul(dy, act.value), dup + i);
      });
    else
      for_lanes(0, width, [&](auto d, int64_t i) HWY_ATTR {
        store(d, hn::Mul(load(d, grad + i), Act::both(d, load(d, gate + i)).slope), dgate + i);
      });
  }
}

template <class Act>
void forward_of(const Tensor& out, const Tensor& in, int64_t first, int64_t last) {
  const auto run = out.dtype == DType::kFloat32 ? forward_rows<Act, float> : forward_rows<Act, BFloat16>;
  run(out, in, first, last);
}

template <class Act>
void backward_of(const Tensor& din, const Tensor& dout, const Tensor& in, int64_t first, int64_t last) {
  const auto run = dout.dtype == DType::kFloat32 ? backward_rows<Act, float> : backward_rows<Act, BFloat16>;
  run(din, dout, in, first, last);
}

void activation_forward_rows(const Tensor& out, const Tensor& in, Activation activation, int64_t first, int64_t last) {
  switch (activation) {
    case Activation::kSilu:
      return forward_of<Silu>(out, in, first, last);
    case Activation::kGelu:
      return forward_of<Gelu>(out, in, first, last);
    case Activation::kGeluTanh:
      return forward_of<GeluTanh>(out, in, first, last);
    case Activation::kRelu:
      return forward_of<Relu>(out, in, first, last);
  }
}

void activation_backward_rows(const Tensor& din, const Tensor& dout, const Tensor& in, Activation activation,
                              int64_t first, int64_t last) {
  switch (activation) {
    case Activation::kSilu:
      return backward_of<Silu>(din, dout, in, first, last);
    case Activation::kGelu:
      return backward_of<Gelu>(din, dout, in, first, last);
    case Activation::kGeluTanh:
      return backward_of<GeluTanh>(din, dout, in, first, last);
    case Activation::kRelu:
      return backward_of<Relu>(din, dout, in, first, last);
  }
}

}  // namespace tunesmith::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tunesmith::cpu {

HWY_EXPORT(activation_forward_rows);
HWY_EXPORT(activation_backward_rows);

void CpuBackend::activation_forward(Tensor out, Tensor in, Activation activation) {
  parallel_ranges(threads_, out.rows, out.cols, [&](int64_t first, int64_t last) {
    HWY_DYNAMIC_DISPATCH(activation_forward_rows)(out, in, activation, first, last);
  });
}

void CpuBackend::activation_backward(Tensor din, Tensor dout, Tensor in, Activation activation) {
  parallel_ranges(threads_, dout.rows, dout.cols, [&](int64_t first, int64_t last) {
    HWY_DYNAMIC_DISPATCH(activation_backward_rows)(din, dout, in, activation, first, last);
  });
}

}  // namespace tunesmith::cpu
#endif
