// Rows of the embedding table, and the gradient added back into them in order of t, without atomics: the first
// occurrence of a token in the batch does the work for all of its occurrences.
#include "cuda/backend.h"
#include "cuda/kernel.h"

namespace tunesmith::cuda {

namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarp;

struct Shared {
  int seen_before;
  int counts[kWarps];
  int32_t rows[kThreads];  // of this run of tokens, those that hold the token, in order
};

// One block per token and run of columns. The scan over the tokens costs T² / 2 reads of 4 bytes, all of them hits of
// the second-level cache: a fraction of a millisecond at 16384 tokens, and no sort, no scratch.
// out[t] = scale · table[tokens[t]], or += with accumulate.
template <int N>
__global__ void embedding_forward_kernel(Rows<float> out, Rows<const float> table, const int32_t* tokens, float scale,
                                         bool accumulate, int64_t width) {
  const int64_t column = (int64_t(blockIdx.y) * blockDim.x + threadIdx.x) * N, row = blockIdx.x;
  if (column >= width) return;
  Pack<float, N> values = load<N>(table[tokens[row]] + column), before{};
  if (accumulate) before = load<N>(out[row] + column);
  for (int i = 0; i < N; ++i) values.v[i] = before.v[i] + scale * values.v[i];
  store(out[row] + column, values);
}

template <int N>
__global__ void embedding_backward_kernel(Rows<float> dtable, Rows<const float> dout, const int32_t* tokens,
                                          float scale, int64_t count, int64_t width) {
  Shared& shared = *shared_storage<Shared>();
  const int thread = int(threadIdx.x), warp = thread / kWarp, lane = thread % kWarp;
  const int64_t t = blockIdx.x, column = (int64_t(blockIdx.y) * kThreads + thread) * N;
  const int32_t token = tokens[t];
  if (thread == 0) shared.seen_before = 0;
  __syncthreads();
  bool seen = false;
  for (int64_t i = thread; i < t; i += kThreads) seen |= tokens[i] == token;
  if (__ballot_sync(kAllLanes, seen) != 0 && lane == 0) shared.seen_before = 1;  // all who write, write the same
  __syncthreads();
  if (shared.seen_before) return;

  Pack<float, N> sum{};
  if (column < width) sum = load<N>(dtable[token] + column);
  for (int64_t run = t; run < count; run += kThreads) {
    const bool match = run + thread < count && tokens[run + thread] == token;
    const unsigned votes = __ballot_sync(kAllLanes, match);
    if (lane == 0) shared.counts[warp] = __popc(votes);
    __syncthreads();
    int before = 0, matches = 0;
    for (int w = 0; w < kWarps; ++w) {
      if (w == warp) before = matches;
      matches += shared.counts[w];
    }
    if (match) shared.rows[before + __popc(votes & ((1u << lane) - 1))] = int32_t(run + thread);
    __syncthreads();
    if (column < width)
      for (int i = 0; i < matches; ++i) {
        const Pack<float, N> more = load<N>(dout[shared.rows[i]] + column);
        for (int j = 0; j < N; ++j) sum.v[j] += scale * more.v[j];
      }
    __syncthreads();  // before the next run overwrites the list
  }
  if (column < width) store(dtable[token] + column, sum);
}

}  // namespace

void CudaBackend::embedding_forward(Tensor out, Tensor table, const int32_t* tokens, double scale, bool accumulate) {
  with_packs<4>(in_packs(4, {out, table}), [&](auto n) {
    constexpr int N = decltype(n)::value;
    const unsigned threads = threads_for(out.cols / N, kThreads);
    const dim3 blocks{unsigned(out.rows), unsigned(ceil_div(out.cols / N, threads))};
    launch(embedding_forward_kernel<N>, {blocks, threads, stream_}, Rows<float>(out), Rows<const float>(table), tokens,
           float(scale), accumulate, out.cols);
  });
}

void CudaBackend::embedding_backward(Tensor dtable, Tensor dout, const int32_t* tokens, double scale) {
  with_packs<4>(in_packs(4, {dtable, dout}), [&](auto n) {
    constexpr int N = decltype(n)::value;
    const dim3 blocks{unsigned(dout.rows), unsigned(ceil_div(dout.cols, kThreads * N))};
    launch(embedding_backward_kernel<N>, {blocks, kThreads, stream_, sizeof(Shared)}, Rows<float>(dtable),
           Rows<const float>(dout), tokens, float(scale), dout.rows, dout.cols);
  });
}

}  // namespace tunesmith::cuda
