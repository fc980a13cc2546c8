// A weight with its low-rank update (arXiv 2106.09685): the norms of its rows for DoRA (arXiv 2402.09353), and the
// update written into it.
#include <algorithm>

#include "cuda/backend.h"
#include "cuda/kernel.h"
#include "cuda/tables.h"

namespace tunesmith::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kRows = 4;  // of the weight per block: a, which all rows need, is read a quarter as often

// Row n of a weight and its column k: in float32, or from NF4 codes.
struct Dense {
  Rows<const float> rows;
  __device__ float operator()(int64_t n, int64_t k) const { return rows[n][k]; }
};
struct Quantized {
  Nf4Matrix part;
  int64_t first;  // row
  const Tables* tables;
  __device__ float operator()(int64_t n, int64_t k) const {
    const int64_t index = (first + n) * part.cols + k, block = index / kNf4Block;
    float scale = part.absmax[part.scale_codes ? block / kNf4Group : block];
    if (part.scale_codes) scale = add(multiply(tables->nf4_scales[part.scale_codes[block]], scale), *part.offset);
    const int byte = part.codes[index / 2];
    return multiply(tables->nf4_values[index % 2 ? byte & 15 : byte >> 4], scale);
  }
};

template <class Weight>
struct Update {
  Weight weight;
  Rows<const float> a, b;
  float scale;
  int64_t rows, ranks, width;

  // weight + scale · b · a at column k of the block's rows; those beyond the last are left out.
  __device__ void at(float (&values)[kRows], int64_t first, int64_t k) const {
    float sums[kRows] = {};
    for (int64_t r = 0; r < ranks; ++r) {
      const float factor = a[r][k];
      for (int i = 0; i < kRows; ++i)
        if (first + i < rows) sums[i] += scale * b[first + i][r] * factor;
    }
    for (int i = 0; i < kRows; ++i) values[i] = first + i < rows ? weight(first + i, k) + sums[i] : 0.0f;
  }
};

template <class Weight>
__global__ void norm_kernel(Update<Weight> update, float* norm, float* gain, const float* magnitude) {
  double* const room = shared_storage<double>(kWarp);
  const int64_t first = int64_t(blockIdx.x) * kRows;
  double squares[kRows] = {};
  for (int64_t k = threadIdx.x; k < update.width; k += blockDim.x) {
    float values[kRows];
    update.at(values, first, k);
    for (int i = 0; i < kRows; ++i) squares[i] += double(values[i]) * double(values[i]);
  }
  for (int i = 0; i < kRows; ++i) {
    const double length = sqrt(block_sum(squares[i], room));
    if (threadIdx.x != 0 || first + i >= update.rows) continue;
    if (gain) gain[first + i] = float(double(magnitude[first + i]) / length);
    norm[first + i] = float(length);
  }
}

__global__ void merge_kernel(Update<Dense> update, Rows<float> weight, const float* gain) {
  const int64_t first = int64_t(blockIdx.x) * kRows;
  for (int64_t k = threadIdx.x; k < update.width; k += blockDim.x) {
    float values[kRows];
    update.at(values, first, k);
    for (int i = 0; i < kRows; ++i)
      if (first + i < update.rows) weight[first + i][k] = gain ? gain[first + i] * values[i] : values[i];
  }
}

template <class Weight>
Update<Weight> update_of(const Weight& weight, Tensor a, Tensor b, double scale) {
  return {weight, Rows<const float>(a), Rows<const float>(b), float(scale), b.rows, a.rows, a.cols};
}

}  // namespace

void CudaBackend::lora_norm(Tensor norm, Tensor gain, Tensor magnitude, const LinearWeight& w, int64_t first, Tensor a,
                            Tensor b, double scale) {
  // Rows [start, start + count) of norm, whose weight is `weight`.
  const auto run = [&](const auto& weight, int64_t start, int64_t count) {
    const dim3 blocks{unsigned(ceil_div(count, kRows))};
    launch(norm_kernel<std::decay_t<decltype(weight)>>,
           {blocks, threads_for(a.cols, kThreads), stream_, kWarp * sizeof(double)},
           update_of(weight, a, b.slice_rows(start, count), scale), norm.as<float>() + start,
           gain ? gain.as<float>() + start : nullptr, gain ? magnitude.as<float>() + start : nullptr);
  };
  const int64_t count = norm.size();
  if (w.quantized.empty()) return run(Dense{Rows<const float>(w.master.slice_rows(first, count))}, 0, count);
  int64_t part_first = 0;
  for (const Nf4Matrix& part : w.quantized) {
    const int64_t begin = std::max(first, part_first), end = std::min(first + count, part_first + part.rows);
    if (begin < end) run(Quantized{part, begin - part_first, tables_}, begin - first, end - begin);
    part_first += part.rows;
  }
}

void CudaBackend::lora_merge(Tensor weight, Tensor a, Tensor b, double scale, Tensor gain) {
  const dim3 blocks{unsigned(ceil_div(weight.rows, kRows))};
  launch(merge_kernel, {blocks, threads_for(weight.cols, kThreads), stream_},
         update_of(Dense{Rows<const float>(weight)}, a, b, scale), Rows<float>(weight),
         gain ? gain.as<float>() : nullptr);
}

}  // namespace tunesmith::cuda
