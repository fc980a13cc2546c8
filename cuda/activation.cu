// The activation of the MLP, plain or gated (arXiv 2002.05202): act(gate) · up.
#include "cuda/backend.h"
#include "cuda/kernel.h"

namespace tunesmith::cuda {

namespace {

constexpr int kThreads = 256;

struct Value {
  float value, derivative;
};

// exp of what is not positive, so that it never overflows.
__device__ inline float sigmoid(float x) {
  const float e = expf(-fabsf(x));
  return (x >= 0 ? 1.0f : e) / (1.0f + e);
}

// The switch is the same for all threads of a launch.
__device__ inline Value activate(float x, Activation activation) {
  constexpr float kRootHalf = 0.70710678118654752f, kDensity = 0.39894228040143268f;  // √½, 1/√(2π)
  constexpr float kLinear = 1.5957691216057308f, kCubic = 0.044715f * kLinear;        // 2 √(2/π)
  switch (activation) {
    case Activation::kSilu: {
      const float s = sigmoid(x);
      return {x * s, s * (1.0f + x * (1.0f - s))};
    }
    case Activation::kGelu: {  // through erfc, which keeps its digits where Φ is small
      const float normal = 0.5f * erfcf(-x * kRootHalf);
      return {x * normal, normal + x * (kDensity * expf(-0.5f * x * x))};
    }
    case Activation::kGeluTanh: {  // (1 + tanh u) / 2 is sigmoid(2u)
      const float s = sigmoid(kLinear * x + kCubic * x * x * x);
      return {x * s, s + x * s * (1.0f - s) * (kLinear + 3 * kCubic * x * x)};
    }
    default:
      return x > 0 ? Value{x, 1} : Value{x != x ? x : 0, 0};
  }
}

template <bool gated, class C, int N>
__global__ void forward_kernel(Rows<C> out, Rows<const C> in, int64_t width, Activation activation) {
  const int64_t column = (int64_t(blockIdx.y) * blockDim.x + threadIdx.x) * N, row = blockIdx.x;
  if (column >= width) return;
  const Pack<C, N> gate = load<N>(in[row] + column);
  Pack<C, N> up, result;
  if constexpr (gated) up = load<N>(in[row] + width + column);
  for (int i = 0; i < N; ++i) {
    const float act = activate(to_float(gate.v[i]), activation).value;
    result.v[i] = from_float<C>(gated ? act * to_float(up.v[i]) : act);
  }
  store(out[row] + column, result);
}

// Everything is read before anything is written: din may be in.
template <bool gated, class C, int N>
__global__ void backward_kernel(Rows<C> din, Rows<const C> dout, Rows<const C> in, int64_t width,
                                Activation activation) {
  const int64_t column = (int64_t(blockIdx.y) * blockDim.x + threadIdx.x) * N, row = blockIdx.x;
  if (column >= width) return;
  const Pack<C, N> gate = load<N>(in[row] + column), gradient = load<N>(dout[row] + column);
  Pack<C, N> up, dgate, dup;
  if constexpr (gated) up = load<N>(in[row] + width + column);
  for (int i = 0; i < N; ++i) {
    const Value act = activate(to_float(gate.v[i]), activation);
    const float g = to_float(gradient.v[i]);
    dgate.v[i] = from_float<C>((gated ? g * to_float(up.v[i]) : g) * act.derivative);
    if constexpr (gated) dup.v[i] = from_float<C>(g * act.value);
  }
  store(din[row] + column, dgate);
  if constexpr (gated) store(din[row] + width + column, dup);
}

// Calls use(C, integral_constant of the pack, bool_constant of `gated`, launch) for activations of this shape.
template <class Use>
void with_shape(Tensor narrow, Tensor broad, Tensor other, cudaStream_t stream, const Use& use) {
  with_compute(narrow.dtype, [&](auto c) {
    using C = decltype(c);
    constexpr int kPack = 16 / sizeof(C);
    with_packs<kPack>(in_packs(kPack, {narrow, broad, other}), [&](auto n) {
      const int64_t packs = narrow.cols / decltype(n)::value;
      const unsigned threads = threads_for(packs, kThreads);
      const Launch where{dim3(unsigned(narrow.rows), unsigned(ceil_div(packs, threads))), threads, stream};
      if (broad.cols == 2 * narrow.cols)
        use(c, n, std::true_type(), where);
      else
        use(c, n, std::false_type(), where);
    });
  });
}

}  // namespace

void CudaBackend::activation_forward(Tensor out, Tensor in, Activation activation) {
  with_shape(out, in, {}, stream_, [&](auto c, auto n, auto gated, const Launch& where) {
    using C = decltype(c);
    launch(forward_kernel<decltype(gated)::value, C, decltype(n)::value>, where, Rows<C>(out), Rows<const C>(in),
           out.cols, activation);
  });
}

void CudaBackend::activation_backward(Tensor din, Tensor dout, Tensor in, Activation activation) {
  with_shape(dout, in, din, stream_, [&](auto c, auto n, auto gated, const Launch& where) {
    using C = decltype(c);
    launch(backward_kernel<decltype(gated)::value, C, decltype(n)::value>, where, Rows<C>(din), Rows<const C>(dout),
           Rows<const C>(in), dout.cols, activation);
  });
}

}  // namespace tunesmith::cuda
