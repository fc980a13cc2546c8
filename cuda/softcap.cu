// Logits kept within a cap (Gemma 2, arXiv 2408.00118).
#include "cuda/backend.h"
#include "cuda/kernel.h"

namespace tunesmith::cuda {

namespace {

constexpr int kThreads = 256;

template <int N>
__global__ void forward_kernel(Rows<float> x, float cap, int64_t width) {
  const int64_t column = (int64_t(blockIdx.y) * blockDim.x + threadIdx.x) * N, row = blockIdx.x;
  if (column >= width) return;
  Pack<float, N> values = load<N>(x[row] + column);
  for (int i = 0; i < N; ++i) values.v[i] = cap * tanhf(values.v[i] / cap);
  store(x[row] + column, values);
}

template <class T, int N>
__global__ void backward_kernel(Rows<T> dx, Rows<const float> y, float cap, int64_t width) {
  const int64_t column = (int64_t(blockIdx.y) * blockDim.x + threadIdx.x) * N, row = blockIdx.x;
  if (column >= width) return;
  const Pack<float, N> values = load<N>(y[row] + column);
  Pack<T, N> gradient = load<N>(dx[row] + column);
  for (int i = 0; i < N; ++i) {
    // (1 - s) (1 + s) keeps the digits that 1 - s² loses near the cap.
    const float share = values.v[i] / cap;
    gradient.v[i] = from_float<T>(to_float(gradient.v[i]) * ((1.0f - share) * (1.0f + share)));
  }
  store(dx[row] + column, gradient);
}

}  // namespace

void CudaBackend::softcap_forward(Tensor x, double cap) {
  with_packs<4>(in_packs(4, {x}), [&](auto n) {
    constexpr int N = decltype(n)::value;
    const unsigned threads = threads_for(x.cols / N, kThreads);
    const dim3 blocks{unsigned(x.rows), unsigned(ceil_div(x.cols / N, threads))};
    launch(forward_kernel<N>, {blocks, threads, stream_}, Rows<float>(x), float(cap), x.cols);
  });
}

void CudaBackend::softcap_backward(Tensor dx, Tensor y, double cap) {
  with_compute(dx.dtype, [&](auto t) {
    using T = decltype(t);
    with_packs<4>(in_packs(4, {dx, y}), [&](auto n) {
      constexpr int N = decltype(n)::value;
      const unsigned threads = threads_for(y.cols / N, kThreads);
      const dim3 blocks{unsigned(y.rows), unsigned(ceil_div(y.cols / N, threads))};
      launch(backward_kernel<T, N>, {blocks, threads, stream_}, Rows<T>(dx), Rows<const float>(y), float(cap), y.cols);
    });
  });
}

}  // namespace tunesmith::cuda
