// Attention in float32, forward and backward, without tensor cores, which would round the products: a warp per query
// (or key), a lane per key (or query) of a tile of 32 for the scores, and a lane per column for the sums.
#include "cuda/attention.h"

namespace tunesmith::cuda {

namespace {

constexpr int kWarps = 8, kThreads = kWarps * kWarp;

// 32 rows that all warps of the block read: an odd row length keeps lanes that read a column in different banks.
struct Tile {
  float* data;
  int stride;

  __device__ Tile(float* room, int head_dim) : data(room), stride(head_dim | 1) {}
  __device__ float* operator[](int row) const { return data + row * stride; }
  __device__ void load(const float* from, int64_t from_stride, int valid, int head_dim) const {
    const int lane = int(threadIdx.x) % kWarp;
    for (int row = int(threadIdx.x) / kWarp; row < kWarp; row += kWarps)
      for (int d = lane; d < head_dim; d += kWarp)
        data[row * stride + d] = row < valid ? from[row * from_stride + d] : 0.0f;
  }
};

// Floats of shared memory for two tiles and two rows per warp.
__host__ __device__ inline size_t shared_floats(int head_dim) {
  return size_t(2 * kWarp + 2 * kWarps) * size_t(head_dim | 1);
}

__device__ inline float dot(const float* a, const float* b, int count) {
  float even = 0, odd = 0;  // two chains of additions; head dimensions are even
  for (int d = 0; d < count; d += 2) even += a[d] * b[d], odd += a[d + 1] * b[d + 1];
  return even + odd;
}

// sum[c] += weight of lane j · row j of the tile, for this lane's columns c · 32 + lane.
template <int Columns>
__device__ inline void add_weighted(float (&sum)[Columns], float weight, const Tile& tile, int head_dim) {
  const int lane = int(threadIdx.x) % kWarp;
  for (int j = 0; j < kWarp; ++j) {
    const float w = __shfl_sync(kAllLanes, weight, j);
#pragma unroll
    for (int c = 0; c < Columns; ++c)
      if (c * kWarp + lane < head_dim) sum[c] += w * tile[j][c * kWarp + lane];
  }
}

template <int Columns>
__device__ inline void store_columns(float* to, const float (&sum)[Columns], float factor, int head_dim) {
  const int lane = int(threadIdx.x) % kWarp;
#pragma unroll
  for (int c = 0; c < Columns; ++c)
    if (c * kWarp + lane < head_dim) to[c * kWarp + lane] = sum[c] * factor;
}

// What a block of queries knows of itself.
struct QueryBlock {
  int64_t q_row, k_row;
  int queries, keys, begin, end;  // keys that any of its queries sees: [begin, end)

  __device__ bool find(const AttentionArguments<float>& a) {
    int sequence, first;
    if (!find_query_tile(a.batch, kWarps, sequence, first)) return false;
    q_row = a.batch.q_offsets[sequence] + first, k_row = a.batch.k_offsets[sequence];
    queries = a.batch.q_offsets[sequence + 1] - int(q_row), keys = a.batch.k_lengths[sequence];
    const int lane = int(threadIdx.x) % kWarp;
    const bool exists = lane < kWarps && lane < queries;
    const int position = exists ? a.batch.q_positions[q_row + lane] : 0;
    begin = warp_least(exists ? a.scores.begin(position) : keys);
    end = -warp_least(exists ? -a.scores.end(position, keys) : 0);
    return true;
  }
};

template <int Columns>
__global__ void __launch_bounds__(kThreads) forward_kernel(AttentionArguments<float> a) {
  float* const room = shared_storage<float>(shared_floats(a.head_dim));
  const Tile k_tile(room, a.head_dim), v_tile(k_tile[kWarp], a.head_dim), q_rows(v_tile[kWarp], a.head_dim);
  const int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp, head = int(blockIdx.y);
  const int column = head / a.group * a.head_dim;
  QueryBlock block;
  if (!block.find(a)) return;
  const bool exists = warp < block.queries;
  const int64_t row = block.q_row + warp;
  const int position = exists ? a.batch.q_positions[row] : -1;
  const int row_begin = a.scores.begin(position), row_end = a.scores.end(position, block.keys);
  for (int d = lane; d < a.head_dim; d += kWarp) q_rows[warp][d] = exists ? a.q[row][head * a.head_dim + d] : 0.0f;

  float sum[Columns] = {}, maximum = kMinusInfinity, total = 0;
  for (int key = block.begin; key < block.end; key += kWarp) {
    __syncthreads();  // before what others still read is overwritten
    k_tile.load(a.k[block.k_row + key] + column, a.k.stride, block.keys - key, a.head_dim);
    v_tile.load(a.v[block.k_row + key] + column, a.v.stride, block.keys - key, a.head_dim);
    __syncthreads();
    const bool sees = key + lane >= row_begin && key + lane < row_end;
    const float score = sees ? a.scores(dot(q_rows[warp], k_tile[lane], a.head_dim)) : kMinusInfinity;
    const float raised = fmaxf(maximum, warp_max(score)), base = raised == kMinusInfinity ? 0.0f : raised;
    const float rescale = exp2f(maximum - base), weight = exp2f(score - base);
    maximum = raised;
    total = total * rescale + weight;
#pragma unroll
    for (int c = 0; c < Columns; ++c) sum[c] *= rescale;
    add_weighted(sum, weight, v_tile, a.head_dim);
  }
  total = warp_sum(total);
  if (!exists) return;
  store_columns(a.out[row] + head * a.head_dim, sum, 1.0f / total, a.head_dim);
  if (lane == 0) a.lse[row][head] = (maximum + log2f(total)) * kLn2;
}

template <int Columns>
__global__ void __launch_bounds__(kThreads) dq_kernel(AttentionArguments<float> a) {
  float* const room = shared_storage<float>(shared_floats(a.head_dim));
  const Tile k_tile(room, a.head_dim), v_tile(k_tile[kWarp], a.head_dim), q_rows(v_tile[kWarp], a.head_dim);
  const Tile dout_rows(q_rows[kWarps], a.head_dim);
  const int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp, head = int(blockIdx.y);
  const int column = head / a.group * a.head_dim;
  QueryBlock block;
  if (!block.find(a)) return;
  const bool exists = warp < block.queries;
  const int64_t row = block.q_row + warp;
  const int position = exists ? a.batch.q_positions[row] : -1;
  const int row_begin = a.scores.begin(position), row_end = a.scores.end(position, block.keys);
  for (int d = lane; d < a.head_dim; d += kWarp) {
    q_rows[warp][d] = exists ? a.q[row][head * a.head_dim + d] : 0.0f;
    dout_rows[warp][d] = exists ? a.dout[row][head * a.head_dim + d] : 0.0f;
  }
  __syncwarp();
  // Summed as dp is: where one key has all the weight, the two are the same and cancel.
  const float delta = exists ? dot(dout_rows[warp], a.out[row] + head * a.head_dim, a.head_dim) : 0.0f;
  if (exists && lane == 0) a.delta[row * a.heads + head] = delta;
  const float lse = exists ? a.lse[row][head] * kLog2E : 0.0f;

  float sum[Columns] = {};
  for (int key = block.begin; key < block.end; key += kWarp) {
    __syncthreads();
    k_tile.load(a.k[block.k_row + key] + column, a.k.stride, block.keys - key, a.head_dim);
    v_tile.load(a.v[block.k_row + key] + column, a.v.stride, block.keys - key, a.head_dim);
    __syncthreads();
    float ds = 0;
    if (key + lane >= row_begin && key + lane < row_end) {
      const float score = a.scores(dot(q_rows[warp], k_tile[lane], a.head_dim));
      ds = exp2f(score - lse) * (dot(dout_rows[warp], v_tile[lane], a.head_dim) - delta) * a.scores.slope(score);
    }
    add_weighted(sum, ds, k_tile, a.head_dim);
  }
  if (exists) store_columns(a.dq[row] + head * a.head_dim, sum, a.scores.scale, a.head_dim);
}

// A warp per key; the tiles hold queries and their gradients.
template <int Columns>
__global__ void __launch_bounds__(kThreads) dkv_kernel(AttentionArguments<float> a) {
  float* const room = shared_storage<float>(shared_floats(a.head_dim));
  const Tile q_tile(room, a.head_dim), dout_tile(q_tile[kWarp], a.head_dim), k_rows(dout_tile[kWarp], a.head_dim);
  const Tile v_rows(k_rows[kWarps], a.head_dim);
  const int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp, kv_head = int(blockIdx.y);
  int sequence, first;
  if (!find_key_tile(a.batch, kWarps, sequence, first)) return;
  const int64_t q_row = a.batch.q_offsets[sequence], row = a.batch.k_offsets[sequence] + first + warp;
  const int queries = a.batch.q_offsets[sequence + 1] - int(q_row), keys = a.batch.k_lengths[sequence];
  const bool exists = first + warp < keys;
  for (int d = lane; d < a.head_dim; d += kWarp) {
    k_rows[warp][d] = exists ? a.k[row][kv_head * a.head_dim + d] : 0.0f;
    v_rows[warp][d] = exists ? a.v[row][kv_head * a.head_dim + d] : 0.0f;
  }
  float dk[Columns] = {}, dv[Columns] = {};
  for (int head = kv_head * a.group; head < (kv_head + 1) * a.group; ++head)
    for (int start = 0; start < queries; start += kWarp) {
      const int64_t query = q_row + start + lane;
      const int position = start + lane < queries ? a.batch.q_positions[query] : -1;
      const int begin = a.scores.begin(position), end = a.scores.end(position, keys);
      if (__ballot_sync(kAllLanes, end > first && begin < first + kWarps) == 0) continue;  // the same for all warps
      __syncthreads();
      q_tile.load(a.q[q_row + start] + head * a.head_dim, a.q.stride, queries - start, a.head_dim);
      dout_tile.load(a.dout[q_row + start] + head * a.head_dim, a.dout.stride, queries - start, a.head_dim);
      __syncthreads();
      float p = 0, ds = 0;
      if (exists && first + warp >= begin && first + warp < end) {
        const float score = a.scores(dot(k_rows[warp], q_tile[lane], a.head_dim));
        p = exp2f(score - a.lse[query][head] * kLog2E);
        ds = p * (dot(v_rows[warp], dout_tile[lane], a.head_dim) - a.delta[query * a.heads + head]) *
             a.scores.slope(score);
      }
      add_weighted(dv, p, dout_tile, a.head_dim);
      add_weighted(dk, ds, q_tile, a.head_dim);
    }
  if (!exists) return;
  store_columns(a.dk[row] + kv_head * a.head_dim, dk, a.scores.scale, a.head_dim);
  store_columns(a.dv[row] + kv_head * a.head_dim, dv, 1.0f, a.head_dim);
}

// Calls `use` with the columns a lane sums.
template <class Use>
void with_columns(int head_dim, const Use& use) {
  if (head_dim <= 64) return use(std::integral_constant<int, 2>());
  if (head_dim <= 128) return use(std::integral_constant<int, 4>());
  use(std::integral_constant<int, 8>());
}

}  // namespace

void attention_forward(const AttentionArguments<float>& a, int64_t q_rows, cudaStream_t stream) {
  with_columns(a.head_dim, [&](auto columns) {
    const dim3 blocks{unsigned(most_tiles(q_rows, a.batch.sequences, kWarps)), unsigned(a.heads)};
    launch(forward_kernel<decltype(columns)::value>,
           {blocks, kThreads, stream, shared_floats(a.head_dim) * sizeof(float)}, a);
  });
}

void attention_backward(const AttentionArguments<float>& a, int64_t q_rows, int64_t k_rows, cudaStream_t stream) {
  with_columns(a.head_dim, [&](auto columns) {
    constexpr int kColumns = decltype(columns)::value;
    const dim3 query_blocks{unsigned(most_tiles(q_rows, a.batch.sequences, kWarps)), unsigned(a.heads)};
    const dim3 key_blocks{unsigned(most_tiles(k_rows, a.batch.sequences, kWarps)), unsigned(a.heads / a.group)};
    const size_t shared = shared_floats(a.head_dim) * sizeof(float);
    launch(dq_kernel<kColumns>, {query_blocks, kThreads, stream, shared}, a);
    launch(dkv_kernel<kColumns>, {key_blocks, kThreads, stream, shared}, a);
  });
}

}  // namespace tunesmith::cuda
