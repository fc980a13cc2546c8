// Rotary position embedding (arXiv 2104.09864), halves of the rotated part of a head paired as in the
// Llama checkpoints.
#include "cuda/backend.h"
#include "cuda/kernel.h"

namespace tunesmith::cuda {

namespace {

constexpr int kThreads = 256;

// One block per row; threads over the pairs of all its heads, N neighbours at once. cos and sin are the same for every
// head and stay in the first-level cache.
template <class C, int N>
__global__ void rope_kernel(Rows<C> x, int heads, int head_dim, int rotary_dim, Rows<const float> table,
                            const int32_t* positions, float sign) {
  const int64_t row = blockIdx.x;
  const int half = rotary_dim / 2, packs = half / N;
  const float* const cosine = table[positions[row]];
  const float* const sine = cosine + half;
  for (int index = int(threadIdx.x); index < heads * packs; index += int(blockDim.x)) {
    const int i = index % packs * N;
    C* const a = x[row] + index / packs * head_dim + i;
    C* const b = a + half;
    const Pack<C, N> a_old = load<N>(a), b_old = load<N>(b);
    Pack<C, N> a_new, b_new;
    for (int j = 0; j < N; ++j) {
      const float c = cosine[i + j], s = sign * sine[i + j], p = to_float(a_old.v[j]), q = to_float(b_old.v[j]);
      a_new.v[j] = from_float<C>(p * c - q * s);
      b_new.v[j] = from_float<C>(q * c + p * s);
    }
    store(a, a_new);
    store(b, b_new);
  }
}

}  // namespace

void CudaBackend::rope(Tensor x, int32_t heads, int32_t head_dim, Tensor table, const int32_t* positions,
                       bool inverse) {
  with_compute(x.dtype, [&](auto c) {
    using C = decltype(c);
    constexpr int kPack = 16 / sizeof(C);
    const bool whole = head_dim % kPack == 0 && table.cols % (2 * kPack) == 0;
    with_packs<kPack>(whole && in_packs(kPack, {x}), [&](auto n) {
      constexpr int N = decltype(n)::value;
      const unsigned threads = threads_for(int64_t(heads) * table.cols / 2 / N, kThreads);
      launch(rope_kernel<C, N>, {dim3(unsigned(x.rows)), threads, stream_}, Rows<C>(x), heads, head_dim,
             int(table.cols), Rows<const float>(table), positions, inverse ? -1.0f : 1.0f);
    });
  });
}

}  // namespace tunesmith::cuda
