// Attention backward in bfloat16. With p = exp(score - lse), dp = dout · v and delta = dout · out:
//   ds = p · (dp - delta);  dq = scale · ds k;  dk = scale · dsᵀ q;  dv = pᵀ dout.
// One kernel goes over the keys of a tile of queries and leaves dq and delta, the other over the queries of a tile of
// keys and leaves dk and dv. Scores are computed in both: two matmuls of seven, for results without atomics.
#include "cuda/attention.h"

namespace tunesmith::cuda {

namespace {

constexpr int kWarps = 4, kThreads = kWarps * kWarp;
constexpr int kTileRows = kWarps * 16;  // queries in the first kernel, keys in the second

// ---- dq -------------------------------------------------------------------------------------------------------------
template <int D>
constexpr int kKeys = D <= 64 ? 64 : 32;
template <int D>
constexpr size_t kQuerySharedBytes = size_t(2 * kTileRows + 4 * kKeys<D>) * kTileStride<D> * sizeof(BF16);

template <int D>
__global__ void __launch_bounds__(kThreads) dq_kernel(AttentionArguments<BF16> a) {
  constexpr int kCount = kKeys<D>, kTiles = kCount / 8;
  BF16* const q_tile = shared_storage<BF16>(kQuerySharedBytes<D> / sizeof(BF16));
  BF16* const dout_tile = q_tile + kTileRows * kTileStride<D>;
  BF16* const k_tiles = dout_tile + kTileRows * kTileStride<D>;
  BF16* const v_tiles = k_tiles + 2 * kCount * kTileStride<D>;
  const int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp, head = int(blockIdx.y);

  int sequence, first;
  if (!find_query_tile(a.batch, kTileRows, sequence, first)) return;
  const int64_t q_row = a.batch.q_offsets[sequence] + first, k_row = a.batch.k_offsets[sequence];
  const int queries = a.batch.q_offsets[sequence + 1] - int(q_row), keys = a.batch.k_lengths[sequence];
  const BF16* const k = a.k[k_row] + head / a.group * a.head_dim;
  const BF16* const v = a.v[k_row] + head / a.group * a.head_dim;

  int begin = keys, end = 0;
  for (int i = lane; i < kTileRows && i < queries; i += kWarp) {
    const int position = a.batch.q_positions[q_row + i];
    const int from = a.scores.begin(position), to = a.scores.end(position, keys);
    begin = from < begin ? from : begin, end = to > end ? to : end;
  }
  begin = warp_least(begin) / kCount * kCount, end = -warp_least(-end);

  const auto load_keys = [&](int key, int buffer) {
    const int valid = keys - key;
    load_tile<D, kCount, kThreads>(k_tiles + buffer * kCount * kTileStride<D>, k + int64_t(key) * a.k.stride,
                                   a.k.stride, valid, a.head_dim, a.packs);
    load_tile<D, kCount, kThreads>(v_tiles + buffer * kCount * kTileStride<D>, v + int64_t(key) * a.v.stride,
                                   a.v.stride, valid, a.head_dim, a.packs);
  };
  load_tile<D, kTileRows, kThreads>(q_tile, a.q[q_row] + head * a.head_dim, a.q.stride, queries, a.head_dim, a.packs);
  load_tile<D, kTileRows, kThreads>(dout_tile, a.dout[q_row] + head * a.head_dim, a.dout.stride, queries, a.head_dim,
                                    a.packs);
  load_keys(begin, 0);
  commit_copies();

  // The two rows of this lane; the four lanes that share a row take a quarter of its columns each.
  int row_begin[2], row_end[2];
  float lse[2], delta[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int i = warp * 16 + lane / 4 + half * 8;
    const bool exists = i < queries;
    const int position = exists ? a.batch.q_positions[q_row + i] : -1;
    row_begin[half] = a.scores.begin(position), row_end[half] = a.scores.end(position, keys);
    lse[half] = exists ? a.lse[q_row + i][head] * kLog2E : 0.0f;
    delta[half] = 0;
    if (exists)
      for (int d = lane % 4; d < a.head_dim; d += 4)
        delta[half] +=
            to_float(a.dout[q_row + i][head * a.head_dim + d]) * to_float(a.out[q_row + i][head * a.head_dim + d]);
    for (int bits = 1; bits < 4; bits *= 2) delta[half] += __shfl_xor_sync(kAllLanes, delta[half], bits);
    if (exists && lane % 4 == 0) a.delta[(q_row + i) * a.heads + head] = delta[half];
  }

  float sum[D / 8][4] = {};
  for (int key = begin, buffer = 0; key < end; key += kCount, buffer = 1 - buffer) {
    if (key + kCount < end) load_keys(key + kCount, 1 - buffer);
    commit_copies();
    wait_for_copies<1>();
    __syncthreads();
    const BF16* const k_tile = k_tiles + buffer * kCount * kTileStride<D>;
    float s[kTiles][4] = {}, dp[kTiles][4] = {};
    multiply_rows<D>(s, q_tile, warp * 16, k_tile, 0);
    multiply_rows<D>(dp, dout_tile, warp * 16, v_tiles + buffer * kCount * kTileStride<D>, 0);
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int half = i / 2, column = key + n * 8 + lane % 4 * 2 + i % 2;
        const float score = a.scores(s[n][i]);
        const float p = column >= row_begin[half] && column < row_end[half] ? exp2f(score - lse[half]) : 0.0f;
        s[n][i] = p * (dp[n][i] - delta[half]) * a.scores.slope(score);
      }
    add_weighted_rows<D>(sum, s, k_tile);
    __syncthreads();
  }
  wait_for_copies<0>();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int i = warp * 16 + lane / 4 + half * 8;
    if (i < queries) store_row<D>(a.dq[q_row + i] + head * a.head_dim, sum, half, a.scores.scale, a.head_dim, a.pairs);
  }
}

// ---- dk and dv ------------------------------------------------------------------------------------------------------
// At D = 128 the sums of both are 128 registers, and at 256 they are all a thread can have: there each has a launch of
// its own.
enum class Of { kBoth, kKeys, kValues };

template <int D>
constexpr int kQueries = D <= 64 ? 64 : 32;

template <int D>
struct KeyShared {
  BF16 k[kTileRows * kTileStride<D>], v[kTileRows * kTileStride<D>];
  BF16 q[2][kQueries<D> * kTileStride<D>], dout[2][kQueries<D> * kTileStride<D>];
  float lse[2][kQueries<D>], delta[2][kQueries<D>];
  int begin[2][kQueries<D>], end[2][kQueries<D>];  // the keys that a query sees
};

// One block per key head and 64 keys, 16 for each warp, over the queries of all heads that read it. Scores are computed
// transposed, keys by queries, so that they are the left operand of both products as they are.
template <int D, Of of>
__global__ void __launch_bounds__(kThreads) dkv_kernel(AttentionArguments<BF16> a) {
  constexpr int kCount = kQueries<D>, kTiles = kCount / 8;
  auto& shared = *shared_storage<KeyShared<D>>();
  const int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp, kv_head = int(blockIdx.y);

  int sequence, first;
  if (!find_key_tile(a.batch, kTileRows, sequence, first)) return;
  const int64_t q_row = a.batch.q_offsets[sequence], k_row = a.batch.k_offsets[sequence] + first;
  const int queries = a.batch.q_offsets[sequence + 1] - int(q_row), keys = a.batch.k_lengths[sequence];
  const int tiles = (queries + kCount - 1) / kCount, steps = tiles * a.group;
  load_tile<D, kTileRows, kThreads>(shared.k, a.k[k_row] + kv_head * a.head_dim, a.k.stride, keys - first, a.head_dim,
                                    a.packs);
  load_tile<D, kTileRows, kThreads>(shared.v, a.v[k_row] + kv_head * a.head_dim, a.v.stride, keys - first, a.head_dim,
                                    a.packs);

  // The first step from this one on with a query that sees a key of the tile: steps are tiles of queries, head by head.
  const auto next_step = [&](int step) {
    for (; step < steps; ++step) {
      bool sees = false;
      for (int i = step % tiles * kCount + lane, n = 0; n < kCount; i += kWarp, n += kWarp)
        if (i < queries) {
          const int position = a.batch.q_positions[q_row + i];
          sees |= a.scores.end(position, keys) > first && a.scores.begin(position) < first + kTileRows;
        }
      if (__ballot_sync(kAllLanes, sees) != 0) break;
    }
    return step;
  };
  const auto load_queries = [&](int step, int buffer) {
    const int head = kv_head * a.group + step / tiles, start = step % tiles * kCount;
    load_tile<D, kCount, kThreads>(shared.q[buffer], a.q[q_row + start] + head * a.head_dim, a.q.stride,
                                   queries - start, a.head_dim, a.packs);
    load_tile<D, kCount, kThreads>(shared.dout[buffer], a.dout[q_row + start] + head * a.head_dim, a.dout.stride,
                                   queries - start, a.head_dim, a.packs);
    for (int i = int(threadIdx.x); i < kCount; i += kThreads) {
      const bool exists = start + i < queries;
      const int64_t row = q_row + start + i;
      const int position = exists ? a.batch.q_positions[row] : -1;
      shared.begin[buffer][i] = a.scores.begin(position), shared.end[buffer][i] = a.scores.end(position, keys);
      shared.lse[buffer][i] = exists ? a.lse[row][head] * kLog2E : 0.0f;
      shared.delta[buffer][i] = exists ? a.delta[row * a.heads + head] : 0.0f;
    }
  };

  float dk[of == Of::kValues ? 1 : D / 8][4] = {}, dv[of == Of::kKeys ? 1 : D / 8][4] = {};
  int step = next_step(0);
  if (step < steps) load_queries(step, 0);
  commit_copies();
  for (int buffer = 0; step < steps; buffer = 1 - buffer) {
    const int next = next_step(step + 1);
    if (next < steps) load_queries(next, 1 - buffer);
    commit_copies();
    wait_for_copies<1>();
    __syncthreads();
    float s[kTiles][4] = {};
    multiply_rows<D>(s, shared.k, warp * 16, shared.q[buffer], 0);
    float p[kTiles][4];
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int query = n * 8 + lane % 4 * 2 + i % 2, key = first + warp * 16 + lane / 4 + i / 2 * 8;
        const bool sees = key >= shared.begin[buffer][query] && key < shared.end[buffer][query];
        s[n][i] = a.scores(s[n][i]);
        p[n][i] = sees ? exp2f(s[n][i] - shared.lse[buffer][query]) : 0.0f;
      }
    if constexpr (of != Of::kKeys) add_weighted_rows<D>(dv, p, shared.dout[buffer]);
    if constexpr (of != Of::kValues) {
      float dp[kTiles][4] = {};
      multiply_rows<D>(dp, shared.v, warp * 16, shared.dout[buffer], 0);
#pragma unroll
      for (int n = 0; n < kTiles; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int query = n * 8 + lane % 4 * 2 + i % 2;
          p[n][i] *= (dp[n][i] - shared.delta[buffer][query]) * a.scores.slope(s[n][i]);
        }
      add_weighted_rows<D>(dk, p, shared.q[buffer]);
    }
    __syncthreads();
    step = next;
  }
  wait_for_copies<0>();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int i = warp * 16 + lane / 4 + half * 8;
    if (first + i >= keys) continue;
    if constexpr (of != Of::kValues)
      store_row<D>(a.dk[k_row + i] + kv_head * a.head_dim, dk, half, a.scores.scale, a.head_dim, a.pairs);
    if constexpr (of != Of::kKeys)
      store_row<D>(a.dv[k_row + i] + kv_head * a.head_dim, dv, half, 1.0f, a.head_dim, a.pairs);
  }
}

}  // namespace

void attention_backward(const AttentionArguments<BF16>& a, int64_t q_rows, int64_t k_rows, cudaStream_t stream) {
  with_tile_width(a.head_dim, [&](auto width) {
    constexpr int D = decltype(width)::value;
    const dim3 query_blocks{unsigned(most_tiles(q_rows, a.batch.sequences, kTileRows)), unsigned(a.heads)};
    const dim3 key_blocks{unsigned(most_tiles(k_rows, a.batch.sequences, kTileRows)), unsigned(a.heads / a.group)};
    launch(dq_kernel<D>, {query_blocks, kThreads, stream, kQuerySharedBytes<D>}, a);
    if constexpr (D <= 128) {
      launch(dkv_kernel<D, Of::kBoth>, {key_blocks, kThreads, stream, sizeof(KeyShared<D>)}, a);
    } else {
      launch(dkv_kernel<D, Of::kKeys>, {key_blocks, kThreads, stream, sizeof(KeyShared<D>)}, a);
      launch(dkv_kernel<D, Of::kValues>, {key_blocks, kThreads, stream, sizeof(KeyShared<D>)}, a);
    }
  });
}

}  // namespace tunesmith::cuda
