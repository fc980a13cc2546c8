#include "cpu/pack.h"

#include <algorithm>
#include <cstring>

#include "cpu/matmul.h"
#include "cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/pack.cc"
#include "hwy/foreach_target.h"  // defines HWY_TARGET for each instruction set

#include "cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tunesmith::cpu::HWY_NAMESPACE {

// to[j] = bfloat16(low[j]) in the low half, bfloat16(high[j]) in the high half.
HWY_INLINE void interleave(uint32_t* to, const float* low, const float* high, int64_t n) {
  for_lanes(0, n, [&](auto d, int64_t j) HWY_ATTR {
    const hn::Rebind<uint32_t, decltype(d)> d32;
    const auto a = bfloat16_bits(d, load(d, low + j)), b = bfloat16_bits(d, load(d, high + j));
    hn::StoreU(hn::Or(a, hn::ShiftLeft<16>(b)), d32, to + j);
  });
}

// One tile [k_block][n_block][2] from rows that run along n (k_stride apart).
void pack_rows(uint32_t* to, const float* from, int64_t k, int64_t n, int64_t k_stride, int64_t k_block,
               int64_t n_block) {
  for (int64_t i = 0; i < k_block; ++i, to += n_block) {
    const float* low = from + 2 * i * k_stride;
    if (2 * i + 1 < k)
      interleave(to, low, low + k_stride, n);
    else if (2 * i < k)
      for (int64_t j = 0; j < n; ++j) to[j] = BFloat16(low[j]).bits;
    else
      std::memset(to, 0, size_t(n_block) * 4);
    std::memset(to + n, 0, size_t(n_block - n) * 4);
  }
}

// One tile [k_block][n_block][2] from rows that run along k (n_stride apart).
void pack_columns(uint32_t* to, const float* from, int64_t k, int64_t n, int64_t n_stride, int64_t k_block,
                  int64_t n_block) {
  if (k < 2 * k_block || n < n_block) std::memset(to, 0, size_t(k_block * n_block) * 4);
  alignas(64) uint32_t line[kMaxPackedPairs];  // one row of the tile, as pairs
  auto* values = reinterpret_cast<BFloat16*>(line);
  line[(k - 1) / 2] = 0;
  for (int64_t j = 0; j < n; ++j) {
    const float* row = from + j * n_stride;
    for_lanes(0, k, [&](auto d, int64_t i) HWY_ATTR { store(d, load(d, row + i), values + i); });
    for (int64_t i = 0; 2 * i < k; ++i) to[i * n_block + j] = line[i];
  }
}

}  // namespace tunesmith::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tunesmith::cpu {

HWY_EXPORT(pack_rows);
HWY_EXPORT(pack_columns);

void pack_weights(void* to, const PackedWeights& layout, const float* master, int64_t k, int64_t n, int64_t k_stride,
                  int64_t n_stride, int threads) {
  const int64_t k_tile = 2 * layout.k_block, n_tile = layout.n_block;
  const int64_t tiles_down = (k + k_tile - 1) / k_tile, tiles_across = (n + n_tile - 1) / n_tile;
  parallel_ranges(threads, tiles_down * tiles_across, k_tile * n_tile, [&](int64_t first, int64_t last) {
    for (int64_t tile = first; tile < last; ++tile) {
      const int64_t k0 = tile % tiles_down * k_tile, n0 = tile / tiles_down * n_tile;
      const int64_t rows = std::min(k_tile, k - k0), cols = std::min(n_tile, n - n0);
      uint32_t* block = static_cast<uint32_t*>(to) + tile * layout.k_block * n_tile;
      const float* from = master + k0 * k_stride + n0 * n_stride;
      if (n_stride == 1)
        HWY_DYNAMIC_DISPATCH(pack_rows)(block, from, rows, cols, k_stride, layout.k_block, n_tile);
      else
        HWY_DYNAMIC_DISPATCH(pack_columns)(block, from, rows, cols, n_stride, layout.k_block, n_tile);
    }
  });
}

}  // namespace tunesmith::cpu
#endif
