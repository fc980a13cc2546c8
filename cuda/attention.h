// What the attention kernels share: where queries and keys lie, how a dot product becomes a weight, and tiles of shared
// memory as tensor cores want them. The shape of the computation is that of FlashAttention-2 (arXiv 2307.08691); the
// backward pass computes each gradient in a kernel of its own, so that no two blocks add to the same place and results
// are the same bits every time.
#pragma once

#include "backend/backend.h"
#include "cuda/kernel.h"
#include "cuda/mma.h"

namespace tunesmith::cuda {

constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;
constexpr float kMinusInfinity = -__builtin_inff();

// ---- arguments ------------------------------------------------------------------------------------------------------
// Scores in units of log 2, which saves a multiplication per exponential.
struct Scores {
  float scale;     // of the dot product, without log2(e)
  float scale2;    // scale · log2(e), or scale / softcap
  float cap2;      // softcap · log2(e); 0 = none
  int32_t window;  // 0 = none

  __device__ float operator()(float dot) const { return cap2 != 0 ? cap2 * tanhf(dot * scale2) : dot * scale2; }
  // d(score) / d(scale · dot).
  __device__ float slope(float score) const { return cap2 != 0 ? 1.0f - (score / cap2) * (score / cap2) : 1.0f; }
  // Keys [begin, end) that a query at `position` sees of `keys`.
  __device__ int end(int position, int keys) const { return position + 1 < keys ? position + 1 : keys; }
  __device__ int begin(int position) const { return window > 0 && position >= window ? position + 1 - window : 0; }
};

template <class C>
struct AttentionArguments {
  Rows<const C> q, k, v;
  Rows<C> out;
  Rows<float> lse;
  // Of the backward pass.
  Rows<const C> dout;
  Rows<C> dq, dk, dv;
  float* delta;  // [Tq, Hq]: dout · out of a query and head
  AttentionBatch batch;
  int32_t heads, group, head_dim;
  Scores scores;
  bool packs;  // rows of q, k, v, dout and out can be read 16 bytes at a time
  bool pairs;  // those that are written, 4 bytes at a time
};

// ---- tiles of sequences ---------------------------------------------------------------------------------------------
// Sequences are cut into tiles of `size` rows each; finds the tile-th of all. Whole warps call it together, and all get
// the same answer: false where there are fewer.
template <class Length>
__device__ inline bool find_tile(int tile, int sequences, int size, const Length& length, int& sequence, int& first) {
  const int lane = int(threadIdx.x) % kWarp;
  int before = 0;
  for (int base = 0; base < sequences; base += kWarp) {
    const int b = base + lane, tiles = b < sequences ? (length(b) + size - 1) / size : 0;
    int up_to = tiles;  // tiles of lanes 0 to this one
    for (int distance = 1; distance < kWarp; distance *= 2) {
      const int more = __shfl_up_sync(kAllLanes, up_to, unsigned(distance));
      if (lane >= distance) up_to += more;
    }
    const unsigned beyond = __ballot_sync(kAllLanes, before + up_to > tile);
    if (beyond != 0) {
      const int winner = __ffs(int(beyond)) - 1;
      sequence = base + winner;
      first = (tile - before - __shfl_sync(kAllLanes, up_to - tiles, winner)) * size;
      return true;
    }
    before += __shfl_sync(kAllLanes, up_to, kWarp - 1);
  }
  return false;
}

__device__ inline bool find_query_tile(const AttentionBatch& batch, int size, int& sequence, int& first) {
  return find_tile(
      int(blockIdx.x), batch.sequences, size, [&](int b) { return batch.q_offsets[b + 1] - batch.q_offsets[b]; },
      sequence, first);
}
__device__ inline bool find_key_tile(const AttentionBatch& batch, int size, int& sequence, int& first) {
  return find_tile(
      int(blockIdx.x), batch.sequences, size, [&](int b) { return batch.k_lengths[b]; }, sequence, first);
}
// No more tiles than these come of `rows` rows in so many sequences.
inline int64_t most_tiles(int64_t rows, int64_t sequences, int64_t size) { return rows / size + sequences; }

__device__ inline int warp_least(int x) {
  for (int bits = kWarp / 2; bits > 0; bits /= 2) {
    const int other = __shfl_xor_sync(kAllLanes, x, bits);
    x = other < x ? other : x;
  }
  return x;
}

// ---- tiles in shared memory -----------------------------------------------------------------------------------------
using BF16 = __nv_bfloat16;

// Rows of D values and 8 more, so that the eight rows an ldmatrix reads at once lie in different banks.
template <int D>
constexpr int kTileStride = D + 8;

// Rows [0, Count) of a head's columns: zeros beyond `valid` rows and beyond `head_dim` columns. With `packs` they
// arrive after commit_copies() and wait_for_copies(), else at once; in both cases for others after a barrier.
template <int D, int Count, int Threads>
__device__ inline void load_tile(BF16* tile, const BF16* from, int64_t stride, int valid, int head_dim, bool packs) {
  constexpr int kPerRow = D / 8;
  if (packs) {
    for (int i = int(threadIdx.x); i < Count * kPerRow; i += Threads) {
      const int row = i / kPerRow, column = i % kPerRow * 8;
      const bool exists = row < valid && column < head_dim;
      copy_async(tile + row * kTileStride<D> + column, exists ? from + row * stride + column : from, exists);
    }
  } else {
    for (int i = int(threadIdx.x); i < Count * D; i += Threads) {
      const int row = i / D, column = i % D;
      const bool exists = row < valid && column < head_dim;
      tile[row * kTileStride<D> + column] = exists ? from[row * stride + column] : __float2bfloat16(0.0f);
    }
  }
}

// ---- fragments ------------------------------------------------------------------------------------------------------
// A[16,16] at `row` and `column` of a tile.
template <int D>
__device__ inline void load_a(uint32_t (&a)[4], const BF16* tile, int row, int column) {
  const int lane = int(threadIdx.x) % kWarp, matrix = lane / 8;
  load_matrices(a, tile + (row + matrix % 2 * 8 + lane % 8) * kTileStride<D> + column + matrix / 2 * 8);
}
// B[16,8] twice, of a tile that holds Bᵀ: rows row and row + 8 on are its columns. b[0], b[1] for the first.
template <int D>
__device__ inline void load_b(uint32_t (&b)[4], const BF16* tile, int row, int column) {
  const int lane = int(threadIdx.x) % kWarp, matrix = lane / 8;
  load_matrices(b, tile + (row + matrix / 2 * 8 + lane % 8) * kTileStride<D> + column + matrix % 2 * 8);
}
// B[16,8] twice, of a tile that holds B: columns column and column + 8 on.
template <int D>
__device__ inline void load_b_transposed(uint32_t (&b)[4], const BF16* tile, int row, int column) {
  const int lane = int(threadIdx.x) % kWarp, matrix = lane / 8;
  load_matrices_transposed(b, tile + (row + matrix % 2 * 8 + lane % 8) * kTileStride<D> + column + matrix / 2 * 8);
}

__device__ inline uint32_t pack(float low, float high) {
  const __nv_bfloat162 pair{__float2bfloat16(low), __float2bfloat16(high)};
  uint32_t both;
  memcpy(&both, &pair, sizeof both);
  return both;
}

// c[16, 8·N] += A[16, D] · Bᵀ of two tiles, from rows `a_row` and `b_row` on.
template <int D, int N>
__device__ inline void multiply_rows(float (&c)[N][4], const BF16* a_tile, int a_row, const BF16* b_tile, int b_row) {
#pragma unroll
  for (int k = 0; k < D; k += 16) {
    uint32_t a[4];
    load_a<D>(a, a_tile, a_row, k);
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      uint32_t b[4];
      load_b<D>(b, b_tile, b_row + n * 8, k);
      mma_m16n8k16(c[n], a, b[0], b[1]);
      mma_m16n8k16(c[n + 1], a, b[2], b[3]);
    }
  }
}

// sum[16, D] += W[16, 8·N] · tile, W as multiply_rows() left its result, rounded to bfloat16.
template <int D, int N>
__device__ inline void add_weighted_rows(float (&sum)[D / 8][4], const float (&w)[N][4], const BF16* tile) {
#pragma unroll
  for (int n = 0; n < N; n += 2) {
    const uint32_t a[4] = {pack(w[n][0], w[n][1]), pack(w[n][2], w[n][3]), pack(w[n + 1][0], w[n + 1][1]),
                           pack(w[n + 1][2], w[n + 1][3])};
#pragma unroll
    for (int d = 0; d < D / 8; d += 2) {
      uint32_t b[4];
      load_b_transposed<D>(b, tile, n * 8, d * 8);
      mma_m16n8k16(sum[d], a, b[0], b[1]);
      mma_m16n8k16(sum[d + 1], a, b[2], b[3]);
    }
  }
}

// Row `row` of what multiply_rows() laid out, times `factor`, to memory: `half` 0 is the lane's first row, 1 the
// second.
template <int D>
__device__ inline void store_row(BF16* to, const float (&sum)[D / 8][4], int half, float factor, int head_dim,
                                 bool pairs) {
  const int first = int(threadIdx.x) % 4 * 2;
#pragma unroll
  for (int d = 0; d < D / 8; ++d) {
    const int column = d * 8 + first;
    if (column >= head_dim) continue;  // an even number
    const float low = sum[d][half * 2] * factor, high = sum[d][half * 2 + 1] * factor;
    if (pairs)
      *reinterpret_cast<__nv_bfloat162*>(to + column) = __nv_bfloat162(__float2bfloat16(low), __float2bfloat16(high));
    else
      to[column] = __float2bfloat16(low), to[column + 1] = __float2bfloat16(high);
  }
}

// ---- kernels --------------------------------------------------------------------------------------------------------
void attention_forward(const AttentionArguments<BF16>& a, int64_t q_rows, cudaStream_t stream);
void attention_forward(const AttentionArguments<float>& a, int64_t q_rows, cudaStream_t stream);
void attention_backward(const AttentionArguments<BF16>& a, int64_t q_rows, int64_t k_rows, cudaStream_t stream);
void attention_backward(const AttentionArguments<float>& a, int64_t q_rows, int64_t k_rows, cudaStream_t stream);

// Calls `use` with the head dimension that tiles have: the next of these.
template <class Use>
void with_tile_width(int head_dim, const Use& use) {
  if (head_dim <= 32) return use(std::integral_constant<int, 32>());
  if (head_dim <= 64) return use(std::integral_constant<int, 64>());
  if (head_dim <= 96) return use(std::integral_constant<int, 96>());
  if (head_dim <= 128) return use(std::integral_constant<int, 128>());
  use(std::integral_constant<int, 256>());
}

}  // namespace tunesmith::cuda
