// Inverted dropout (arXiv 1207.0580) with a counter-based mask: Philox is computed where it is needed, four neighbours
// per call, and no mask is stored.
#include "cuda/backend.h"
#include "cuda/kernel.h"
#include "cuda/philox.h"

namespace tunesmith::cuda {

namespace {

constexpr int kThreads = 128;

// Four columns per thread, those of one Philox call; N of them move at once.
template <class C, int N>
__global__ void dropout_kernel(Rows<C> y, Rows<const C> x, uint64_t key, const int32_t* positions,
                               const int32_t* conversations, uint32_t threshold, float scale, bool accumulate,
                               int64_t width) {
  const int64_t quad = int64_t(blockIdx.y) * blockDim.x + threadIdx.x, row = blockIdx.x;
  if (quad * 4 >= width) return;
  const uint4 random = philox(key, {uint32_t(quad), uint32_t(positions[row]), uint32_t(conversations[row]), 0});
  const uint32_t words[4] = {random.x, random.y, random.z, random.w};
  for (int part = 0; part < 4; part += N) {
    const int64_t column = quad * 4 + part;
    if (column >= width) break;
    const Pack<C, N> values = load<N>(x[row] + column);
    Pack<C, N> result;
    if (accumulate) result = load<N>(y[row] + column);
    for (int i = 0; i < N; ++i) {
      const float kept = words[part + i] >= threshold ? to_float(values.v[i]) * scale : 0.0f;
      result.v[i] = from_float<C>(accumulate ? to_float(result.v[i]) + kept : kept);
    }
    store(y[row] + column, result);
  }
}

}  // namespace

void CudaBackend::dropout(Tensor y, Tensor x, const DropoutMask& mask, bool accumulate) {
  // A word stays where it is at least probability · 2³², which is where it is at least that rounded up.
  const double bound = mask.probability * 0x1p32;
  const uint32_t threshold = uint32_t(bound) + (double(uint32_t(bound)) < bound ? 1 : 0);
  with_compute(y.dtype, [&](auto c) {
    using C = decltype(c);
    with_packs<4>(in_packs(4, {y, x}), [&](auto n) {
      constexpr int N = decltype(n)::value;
      const int64_t quads = ceil_div(y.cols, 4);
      const unsigned threads = threads_for(quads, kThreads);
      const dim3 blocks{unsigned(y.rows), unsigned(ceil_div(quads, threads))};
      launch(dropout_kernel<C, N>, {blocks, threads, stream_}, Rows<C>(y), Rows<const C>(x), mask.key, mask.positions,
             mask.conversations, threshold, float(1 / (1 - mask.probability)), accumulate, y.cols);
    });
  });
}

}  // namespace tunesmith::cuda
