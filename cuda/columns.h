// Sums over the rows of a matrix, per column, in a fixed order: blocks sum runs of rows into `parts` rows of partial
// sums, which add_partials() of the backend then sums from first to last.
#pragma once

#include <algorithm>

#include "cuda/kernel.h"

namespace tunesmith::cuda {

constexpr int kColumnWarps = 8;

// Warp w of part p takes rows first + w, first + w + 8, ... of the part's run; lanes are neighbouring columns, so that
// a warp reads whole sectors of memory.
template <class Value>
__global__ void column_sums(Value value, float* partials, int64_t rows, int64_t width, int64_t run) {
  float* const sums = shared_storage<float>(kColumnWarps * kWarp);
  const int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp;
  const int64_t column = int64_t(blockIdx.x) * kWarp + lane, first = int64_t(blockIdx.y) * run;
  const int64_t last = first + run < rows ? first + run : rows;
  float sum = 0;
  if (column < width)
    for (int64_t row = first + warp; row < last; row += kColumnWarps) sum += value(row, column);
  sums[warp * kWarp + lane] = sum;
  __syncthreads();
  if (warp != 0 || column >= width) return;
  sum = 0;
  for (int w = 0; w < kColumnWarps; ++w) sum += sums[w * kWarp + lane];
  partials[int64_t(blockIdx.y) * width + column] = sum;
}

// Enough parts for the blocks to fill the device, of 64 rows at least.
inline int64_t column_parts(int64_t rows, int64_t width, int64_t resident_blocks) {
  const int64_t wanted = ceil_div(resident_blocks * 4, ceil_div(width, kWarp));
  return std::clamp<int64_t>(ceil_div(rows, 64), 1, std::max<int64_t>(1, std::min<int64_t>(wanted, 256)));
}

template <class Value>
void sum_columns(Value value, float* partials, int64_t parts, int64_t rows, int64_t width, cudaStream_t stream) {
  const dim3 blocks{unsigned(ceil_div(width, kWarp)), unsigned(parts)};
  launch(column_sums<Value>, {blocks, kColumnWarps * kWarp, stream, kColumnWarps * kWarp * sizeof(float)}, value,
         partials, rows, width, ceil_div(rows, parts));
}

}  // namespace tunesmith::cuda
