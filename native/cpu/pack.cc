#include "cpu/pack.h"

#include <algorithm>
#include <cstring>

#include "cpu/matmul.h"
#include "cpu/nf4.h"
#include "cpu/parallel.h"

#ifndef TUNESMITH_CPU_PACK_ONCE
#define TUNESMITH_CPU_PACK_ONCE
namespace tunesmith::cpu {
constexpr int64_t kTransposeStrip = 32;  // columns: 64 bytes
}
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/pack.cc"
#include "hwy/foreach_target.h"  // defines HWY_TARGET for each instruction set

#include "cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tunesmith::cpu::HWY_NAMESPACE {

template <class D>
HWY_INLINE hn::Vec<hn::Rebind<uint32_t, D>> bits_of(D d, const float* from) {
  return bfloat16_bits(d, load(d, from));
}

template <class D>
HWY_INLINE hn::Vec<hn::Rebind<uint32_t, D>> bits_of(D, const BFloat16* from) {
  const hn::Rebind<uint16_t, D> d16;
  return hn::PromoteTo(hn::Rebind<uint32_t, D>(), hn::LoadU(d16, reinterpret_cast<const uint16_t*>(from)));
}

// One tile [k_block][n_block][2] from rows that run along n (k_stride apart).
template <class In>
HWY_INLINE void pack_tile(uint32_t* to, const In* from, int64_t k, int64_t n, int64_t k_stride, int64_t k_block,
                          int64_t n_block) {
  for (int64_t i = 0; i < k_block; ++i, to += n_block) {
    const In* low = from + 2 * i * k_stride;
    const bool has_low = 2 * i < k, has_high = 2 * i + 1 < k;
    if (!has_low) {
      std::memset(to, 0, size_t(n_block) * sizeof(*to));
      continue;
    }
    for_lanes(0, n, [&](auto d, int64_t j) HWY_ATTR {
      auto pair = bits_of(d, low + j);
      if (has_high) pair = hn::Or(pair, hn::ShiftLeft<16>(bits_of(d, low + k_stride + j)));
      hn::StoreU(pair, hn::Rebind<uint32_t, decltype(d)>(), to + j);
    });
    std::memset(to + n, 0, size_t(n_block - n) * sizeof(*to));
  }
}

void pack_rows(uint32_t* to, const float* from, int64_t k, int64_t n, int64_t k_stride, int64_t k_block,
               int64_t n_block) {
  pack_tile(to, from, k, n, k_stride, k_block, n_block);
}

void pack_operand_rows(uint32_t* to, const BFloat16* from, int64_t k, int64_t n, int64_t k_stride, int64_t k_block,
                       int64_t n_block) {
  pack_tile(to, from, k, n, k_stride, k_block, n_block);
}

// One tile [k_block][n_block][2] from rows that run along k (n_stride apart).
void pack_columns(uint32_t* to, const float* from, int64_t k, int64_t n, int64_t n_stride, int64_t k_block,
                  int64_t n_block) {
  if (k < 2 * k_block || n < n_block) std::memset(to, 0, size_t(k_block * n_block) * sizeof(*to));
  const int64_t pairs = (k + 1) / 2;
  alignas(64) uint32_t lines[4][kMaxPackedPairs];  // rows of the master, as pairs
  for (auto& line : lines) line[pairs - 1] = 0;
  const auto convert = [&](int64_t j) HWY_ATTR {
    auto* line = reinterpret_cast<BFloat16*>(lines[j % 4]);
    const float* row = from + j * n_stride;
    for_lanes(0, k, [&](auto d, int64_t i) HWY_ATTR { store(d, load(d, row + i), line + i); });
  };
  int64_t j = 0;
#if HWY_TARGET != HWY_SCALAR
  for (; j + 4 <= n; j += 4) {
    for (int64_t r = 0; r < 4; ++r) convert(j + r);
    int64_t i = 0;
    for (; i + 4 <= pairs; i += 4) {
      const FourTag d;
      const hn::RebindToUnsigned<FourTag> d32;
      FourFloats block[4];
      for (int r = 0; r < 4; ++r) block[r] = hn::BitCast(d, hn::LoadU(d32, lines[r] + i));
      transpose_4x4(block);
      for (int c = 0; c < 4; ++c) hn::StoreU(hn::BitCast(d32, block[c]), d32, to + (i + c) * n_block + j);
    }
    for (; i < pairs; ++i)
      for (int r = 0; r < 4; ++r) to[i * n_block + j + r] = lines[r][i];
  }
#endif
  for (; j < n; ++j) {
    convert(j);
    for (int64_t i = 0; i < pairs; ++i) to[i * n_block + j] = lines[j % 4][i];
  }
}

#if HWY_TARGET != HWY_SCALAR
// Eight rows and columns: neighbours in a row become neighbours in a column by interleaving rows in pairs, pairs of
// pairs, and fours.
HWY_INLINE void transpose_eight(uint16_t* to, int64_t to_stride, const uint16_t* from, int64_t from_stride) {
  const hn::FixedTag<uint16_t, 8> d16;
  const hn::RepartitionToWide<decltype(d16)> d32;
  const hn::RepartitionToWide<decltype(d32)> d64;
  hn::Vec<decltype(d32)> low[4], high[4];  // columns 0-3 and 4-7 of rows 2i and 2i + 1
  for (int i = 0; i < 4; ++i) {
    const auto even = hn::LoadU(d16, from + 2 * i * from_stride),
               odd = hn::LoadU(d16, from + (2 * i + 1) * from_stride);
    low[i] = hn::BitCast(d32, hn::InterleaveLower(d16, even, odd));
    high[i] = hn::BitCast(d32, hn::InterleaveUpper(d16, even, odd));
  }
  for (int half = 0; half < 2; ++half) {
    const auto* pairs = half == 0 ? low : high;
    uint16_t* at = to + half * 4 * to_stride;
    const auto a = hn::BitCast(d64, hn::InterleaveLower(d32, pairs[0], pairs[1]));
    const auto b = hn::BitCast(d64, hn::InterleaveLower(d32, pairs[2], pairs[3]));
    const auto c = hn::BitCast(d64, hn::InterleaveUpper(d32, pairs[0], pairs[1]));
    const auto e = hn::BitCast(d64, hn::InterleaveUpper(d32, pairs[2], pairs[3]));
    hn::StoreU(hn::BitCast(d16, hn::InterleaveLower(d64, a, b)), d16, at);
    hn::StoreU(hn::BitCast(d16, hn::InterleaveUpper(d64, a, b)), d16, at + to_stride);
    hn::StoreU(hn::BitCast(d16, hn::InterleaveLower(d64, c, e)), d16, at + 2 * to_stride);
    hn::StoreU(hn::BitCast(d16, hn::InterleaveUpper(d64, c, e)), d16, at + 3 * to_stride);
  }
}
#endif

// Columns [first, last) of x, of which kStrip share their cache lines, become rows of `to`. Rows go in blocks that stay
// in the first-level cache while a strip is read in pieces; the pieces keep to eight rows of `to`, because rows a power
// of two apart compete for the same few lines.
void transpose_columns(BFloat16* to, const Tensor& x, int64_t first, int64_t last) {
  constexpr int64_t kRows = 256;
  for (int64_t top = 0; top < x.rows; top += kRows) {
    const int64_t bottom = std::min(top + kRows, x.rows);
    for (int64_t strip = first; strip < last; strip += kTransposeStrip) {
      const int64_t end = std::min(strip + kTransposeStrip, last);
      int64_t c = strip, full = top;  // rows below `full` are done in columns below c
#if HWY_TARGET != HWY_SCALAR
      full = top + (bottom - top) / 8 * 8;
      for (; c + 8 <= end; c += 8)
        for (int64_t r = top; r < full; r += 8)
          transpose_eight(reinterpret_cast<uint16_t*>(to + c * x.rows + r), x.rows,
                          reinterpret_cast<const uint16_t*>(x.row<BFloat16>(r) + c), x.stride);
#endif
      for (int64_t i = strip; i < end; ++i)
        for (int64_t r = i < c ? full : top; r < bottom; ++r) to[i * x.rows + r] = x.row<BFloat16>(r)[i];
    }
  }
}

}  // namespace tunesmith::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tunesmith::cpu {

HWY_EXPORT(pack_rows);
HWY_EXPORT(pack_columns);
HWY_EXPORT(pack_operand_rows);
HWY_EXPORT(transpose_columns);

namespace {

// Calls body(tile, first row, rows, first column, columns) for every tile of a packed [k, n].
template <class Body>
void for_tiles(uint32_t* to, const PackedWeights& layout, int64_t k, int64_t n, int threads, const Body& body) {
  const int64_t k_tile = 2 * layout.k_block, n_tile = layout.n_block;
  const int64_t tiles_down = (k + k_tile - 1) / k_tile, tiles_across = (n + n_tile - 1) / n_tile;
  parallel_ranges(threads, tiles_down * tiles_across, k_tile * n_tile, [&](int64_t first, int64_t last) {
    for (int64_t tile = first; tile < last; ++tile) {
      const int64_t k0 = tile % tiles_down * k_tile, n0 = tile / tiles_down * n_tile;
      body(to + tile * layout.k_block * n_tile, k0, std::min(k_tile, k - k0), n0, std::min(n_tile, n - n0));
    }
  });
}

}  // namespace

void pack_weights(void* to, const PackedWeights& layout, const float* master, int64_t k, int64_t n, int64_t k_stride,
                  int64_t n_stride, int threads) {
  for_tiles(static_cast<uint32_t*>(to), layout, k, n, threads,
            [&](uint32_t* tile, int64_t k0, int64_t rows, int64_t n0, int64_t cols) {
              const float* from = master + k0 * k_stride + n0 * n_stride;
              if (n_stride == 1)
                HWY_DYNAMIC_DISPATCH(pack_rows)(tile, from, rows, cols, k_stride, layout.k_block, layout.n_block);
              else
                HWY_DYNAMIC_DISPATCH(pack_columns)(tile, from, rows, cols, n_stride, layout.k_block, layout.n_block);
            });
}

void pack_quantized(void* to, const PackedWeights& layout, std::span<const Nf4Matrix> w, int64_t k, int64_t n,
                    bool transposed, int threads) {
  for_tiles(static_cast<uint32_t*>(to), layout, k, n, threads,
            [&](uint32_t* tile, int64_t k0, int64_t rows, int64_t n0, int64_t cols) {
              alignas(64) float values[2 * kMaxPackedPairs * kMaxPackedColumns];
              if (transposed) {
                nf4_rectangle(values, cols, w, k0, rows, n0, cols);
                HWY_DYNAMIC_DISPATCH(pack_rows)(tile, values, rows, cols, cols, layout.k_block, layout.n_block);
              } else {
                nf4_rectangle(values, rows, w, n0, cols, k0, rows);
                HWY_DYNAMIC_DISPATCH(pack_columns)(tile, values, rows, cols, rows, layout.k_block, layout.n_block);
              }
            });
}

void pack_operand(void* to, const PackedWeights& layout, const Tensor& x, int threads) {
  for_tiles(static_cast<uint32_t*>(to), layout, x.rows, x.cols, threads,
            [&](uint32_t* tile, int64_t k0, int64_t rows, int64_t n0, int64_t cols) {
              HWY_DYNAMIC_DISPATCH(pack_operand_rows)
              (tile, x.row<BFloat16>(k0) + n0, rows, cols, x.stride, layout.k_block, layout.n_block);
            });
}

void transpose(BFloat16* to, const Tensor& x, int threads) {
  const int64_t strips = (x.cols + kTransposeStrip - 1) / kTransposeStrip;
  parallel_ranges(threads, strips, kTransposeStrip * x.rows, [&](int64_t first, int64_t last) {
    HWY_DYNAMIC_DISPATCH(transpose_columns)
    (to, x, first * kTransposeStrip, std::min(last * kTransposeStrip, x.cols));
  });
}

}  // namespace tunesmith::cpu
#endif
