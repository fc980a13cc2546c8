// Attention forward in bfloat16: softmax on the fly over tiles of keys, in float32.
#include "cuda/attention.h"

namespace tunesmith::cuda {

namespace {

constexpr int kWarps = 4, kThreads = kWarps * kWarp;
constexpr int kQueries = kWarps * 16;

// Registers and shared memory decide: at 64 keys a thread of D = 128 holds 64 sums, 32 scores and 16 pairs of weights,
// and two blocks of 87 KiB fit a multiprocessor; with D = 256 the sums alone are 128 registers.
template <int D>
constexpr int kKeys = D <= 128 ? 64 : 32;

template <int D>
constexpr size_t kSharedBytes = size_t(kQueries + 4 * kKeys<D>) * kTileStride<D> * sizeof(BF16);

// One block per head and 64 queries of a sequence, 16 for each warp; keys and values pass through two buffers, one
// filled while the other is used. Late tiles see most keys and go first, so that the last blocks to end are short.
template <int D>
__global__ void __launch_bounds__(kThreads) forward_kernel(AttentionArguments<BF16> a) {
  constexpr int kCount = kKeys<D>, kTiles = kCount / 8;
  BF16* const q_tile = shared_storage<BF16>(kSharedBytes<D> / sizeof(BF16));
  BF16* const k_tiles = q_tile + kQueries * kTileStride<D>;
  BF16* const v_tiles = k_tiles + 2 * kCount * kTileStride<D>;
  const int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp, head = int(blockIdx.y);

  int sequence, first;
  if (!find_query_tile(a.batch, kQueries, sequence, first)) return;
  const int64_t q_row = a.batch.q_offsets[sequence] + first, k_row = a.batch.k_offsets[sequence];
  const int queries = a.batch.q_offsets[sequence + 1] - int(q_row), keys = a.batch.k_lengths[sequence];
  const BF16* const q = a.q[q_row] + head * a.head_dim;
  const BF16* const k = a.k[k_row] + head / a.group * a.head_dim;
  const BF16* const v = a.v[k_row] + head / a.group * a.head_dim;

  // Keys that any query of the block sees, and those that all see.
  int begin = keys, end = 0, all_begin = 0, all_end = keys;
  for (int i = lane; i < kQueries && i < queries; i += kWarp) {
    const int position = a.batch.q_positions[q_row + i];
    const int from = a.scores.begin(position), to = a.scores.end(position, keys);
    begin = from < begin ? from : begin, end = to > end ? to : end;
    all_begin = from > all_begin ? from : all_begin, all_end = to < all_end ? to : all_end;
  }
  begin = warp_least(begin), end = -warp_least(-end);
  all_begin = -warp_least(-all_begin), all_end = warp_least(all_end);

  // The two rows of this lane.
  int row_begin[2], row_end[2];
  for (int half = 0; half < 2; ++half) {
    const int i = warp * 16 + lane / 4 + half * 8;
    const int position = i < queries ? a.batch.q_positions[q_row + i] : -1;
    row_begin[half] = a.scores.begin(position), row_end[half] = a.scores.end(position, keys);
  }

  const auto load_keys = [&](int key, int buffer) {
    const int valid = keys - key;
    load_tile<D, kCount, kThreads>(k_tiles + buffer * kCount * kTileStride<D>, k + int64_t(key) * a.k.stride,
                                   a.k.stride, valid, a.head_dim, a.packs);
    load_tile<D, kCount, kThreads>(v_tiles + buffer * kCount * kTileStride<D>, v + int64_t(key) * a.v.stride,
                                   a.v.stride, valid, a.head_dim, a.packs);
  };
  load_tile<D, kQueries, kThreads>(q_tile, q, a.q.stride, queries, a.head_dim, a.packs);
  begin = begin / kCount * kCount;
  load_keys(begin, 0);
  commit_copies();

  float sum[D / 8][4] = {}, maximum[2] = {kMinusInfinity, kMinusInfinity}, total[2] = {};
  for (int key = begin, buffer = 0; key < end; key += kCount, buffer = 1 - buffer) {
    if (key + kCount < end) load_keys(key + kCount, 1 - buffer);
    commit_copies();
    wait_for_copies<1>();
    __syncthreads();

    float s[kTiles][4] = {};
    multiply_rows<D>(s, q_tile, warp * 16, k_tiles + buffer * kCount * kTileStride<D>, 0);
    const bool whole = key >= all_begin && key + kCount <= all_end;
    float largest[2] = {kMinusInfinity, kMinusInfinity};
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int half = i / 2, column = key + n * 8 + lane % 4 * 2 + i % 2;
        s[n][i] = a.scores(s[n][i]);
        if (!whole && (column < row_begin[half] || column >= row_end[half])) s[n][i] = kMinusInfinity;
        largest[half] = fmaxf(largest[half], s[n][i]);
      }
    float base[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      // The four lanes that share a row.
      for (int bits = 1; bits < 4; bits *= 2)
        largest[half] = fmaxf(largest[half], __shfl_xor_sync(kAllLanes, largest[half], bits));
      const float raised = fmaxf(maximum[half], largest[half]);
      // A row may have seen no key yet: then nothing is there to be rescaled, and -inf less -inf is no number.
      base[half] = raised == kMinusInfinity ? 0.0f : raised;
      const float rescale = exp2f(maximum[half] - base[half]);
      maximum[half] = raised;
      total[half] *= rescale;
#pragma unroll
      for (int d = 0; d < D / 8; ++d) sum[d][half * 2] *= rescale, sum[d][half * 2 + 1] *= rescale;
    }
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        s[n][i] = exp2f(s[n][i] - base[i / 2]);
        total[i / 2] += s[n][i];
      }
    add_weighted_rows<D>(sum, s, v_tiles + buffer * kCount * kTileStride<D>);
    __syncthreads();  // before the next tile but one overwrites this one
  }
  wait_for_copies<0>();

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    for (int bits = 1; bits < 4; bits *= 2) total[half] += __shfl_xor_sync(kAllLanes, total[half], bits);
    const int i = warp * 16 + lane / 4 + half * 8;
    if (i >= queries) continue;
    store_row<D>(a.out[q_row + i] + head * a.head_dim, sum, half, 1.0f / total[half], a.head_dim, a.pairs);
    if (lane % 4 == 0) a.lse[q_row + i][head] = (maximum[half] + log2f(total[half])) * kLn2;
  }
}

}  // namespace

void attention_forward(const AttentionArguments<BF16>& a, int64_t q_rows, cudaStream_t stream) {
  with_tile_width(a.head_dim, [&](auto width) {
    constexpr int D = decltype(width)::value;
    const dim3 blocks{unsigned(most_tiles(q_rows, a.batch.sequences, kQueries)), unsigned(a.heads)};
    launch(forward_kernel<D>, {blocks, kThreads, stream, kSharedBytes<D>}, a);
  });
}

}  // namespace tunesmith::cuda
