// NEFTune (arXiv 2310.05914): uniform noise on embeddings, computed where it is added, four neighbours per Philox call.
#include <cmath>

#include "cuda/backend.h"
#include "cuda/kernel.h"
#include "cuda/philox.h"

namespace tunesmith::cuda {

namespace {

constexpr int kThreads = 128;

// The sequence of a row by bisection: a handful of reads that all threads of the block share.
template <int N>
__global__ void noise_kernel(Rows<float> x, EmbeddingNoise noise, int64_t width) {
  const int64_t quad = int64_t(blockIdx.y) * blockDim.x + threadIdx.x;
  const int32_t row = int32_t(blockIdx.x);
  if (quad * 4 >= width || row >= noise.offsets[noise.sequences]) return;
  int32_t low = 0, high = noise.sequences;  // offsets[low] <= row < offsets[high]
  while (high - low > 1) {
    const int32_t middle = (low + high) / 2;
    if (noise.offsets[middle] <= row)
      low = middle;
    else
      high = middle;
  }
  const int32_t first = noise.offsets[low], length = noise.offsets[low + 1] - first;
  const float scale = float(noise.alpha / sqrt(double(length) * double(width)) * 0x1p-31);
  const uint4 random =
      philox(noise.key, {uint32_t(quad), uint32_t(row - first), uint32_t(noise.conversations[row]), 0});
  const uint32_t words[4] = {random.x, random.y, random.z, random.w};
  for (int part = 0; part < 4; part += N) {
    const int64_t column = quad * 4 + part;
    if (column >= width) break;
    Pack<float, N> values = load<N>(x[row] + column);
    for (int i = 0; i < N; ++i) values.v[i] += scale * float(int32_t(words[part + i] ^ 0x80000000u));
    store(x[row] + column, values);
  }
}

}  // namespace

void CudaBackend::embedding_noise(Tensor x, const EmbeddingNoise& noise) {
  with_packs<4>(in_packs(4, {x}), [&](auto n) {
    const int64_t quads = ceil_div(x.cols, 4);
    const unsigned threads = threads_for(quads, kThreads);
    const dim3 blocks{unsigned(x.rows), unsigned(ceil_div(quads, threads))};
    launch(noise_kernel<decltype(n)::value>, {blocks, threads, stream_}, Rows<float>(x), noise, x.cols);
  });
}

}  // namespace tunesmith::cuda
