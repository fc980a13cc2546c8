// Additions to the residual stream where no norm does them on its way.
#include "cuda/backend.h"
#include "cuda/kernel.h"

namespace tunesmith::cuda {

namespace {

constexpr int kThreads = 256;

template <class C, int N>
__global__ void add_kernel(Rows<float> out, Rows<C> out_compute, Rows<const float> residual, Rows<const C> delta,
                           int64_t width) {
  const int64_t column = (int64_t(blockIdx.y) * blockDim.x + threadIdx.x) * N, row = blockIdx.x;
  if (column >= width) return;
  Pack<float, N> sum = load<N>(residual[row] + column);
  const Pack<C, N> more = load<N>(delta[row] + column);
  Pack<C, N> copy;
  for (int i = 0; i < N; ++i) {
    sum.v[i] += to_float(more.v[i]);
    copy.v[i] = from_float<C>(sum.v[i]);
  }
  store(out[row] + column, sum);
  if (out_compute.data) store(out_compute[row] + column, copy);
}

}  // namespace

void CudaBackend::residual_add(Tensor out, Tensor out_compute, Tensor residual, Tensor delta) {
  with_compute(delta.dtype, [&](auto c) {
    using C = decltype(c);
    with_packs<4>(in_packs(4, {out, out_compute, residual, delta}), [&](auto n) {
      constexpr int N = decltype(n)::value;
      const unsigned threads = threads_for(out.cols / N, kThreads);
      const dim3 blocks{unsigned(out.rows), unsigned(ceil_div(out.cols / N, threads))};
      launch(add_kernel<C, N>, {blocks, threads, stream_}, Rows<float>(out), Rows<C>(out_compute),
             Rows<const float>(residual), Rows<const C>(delta), out.cols);
    });
  });
}

}  // namespace tunesmith::cuda
