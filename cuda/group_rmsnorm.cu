// Root mean square normalisation (arXiv 1910.07467) of groups of columns that share their weights: a warp per row and
// group, which is as wide as a head almost everywhere.
#include "cuda/backend.h"
#include "cuda/columns.h"
#include "cuda/kernel.h"

namespace tunesmith::cuda {

namespace {

constexpr int kWarps = 4, kThreads = kWarps * kWarp;

// The row and the first column of this warp's group; false beyond the last.
__device__ inline bool find_group(int64_t rows, int32_t groups, int64_t width, int64_t& row, int64_t& first) {
  const int64_t item = int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  row = item / groups, first = item % groups * width;
  return row < rows;
}

// 1 / sqrt(mean(x²) + epsilon) over the group, in all lanes.
template <int N, class C>
__device__ inline float reciprocal_root(const C* x, int64_t width, float epsilon) {
  float squares = 0;
  for (int64_t i = int64_t(threadIdx.x % kWarp) * N; i < width; i += kWarp * N) {
    const Pack<C, N> values = load<N>(x + i);
    for (int j = 0; j < N; ++j) squares += to_float(values.v[j]) * to_float(values.v[j]);
  }
  return 1.0f / sqrtf(warp_sum(squares) / float(width) + epsilon);
}

template <class C, int N>
__global__ void forward_kernel(Rows<C> y, Rows<const C> x, const float* weight, float offset, float epsilon,
                               int64_t rows, int32_t groups, int64_t width) {
  int64_t row, first;
  if (!find_group(rows, groups, width, row, first)) return;
  const C* const in = x[row] + first;
  const float rstd = reciprocal_root<N>(in, width, epsilon);
  for (int64_t i = int64_t(threadIdx.x % kWarp) * N; i < width; i += kWarp * N) {
    Pack<C, N> values = load<N>(in + i);
    for (int j = 0; j < N; ++j) values.v[j] = from_float<C>(to_float(values.v[j]) * rstd * (offset + weight[i + j]));
    store(y[row] + first + i, values);
  }
}

template <class C, int N>
__global__ void rstd_kernel(float* rstd, Rows<const C> x, float epsilon, int64_t rows, int32_t groups, int64_t width) {
  int64_t row, first;
  if (!find_group(rows, groups, width, row, first)) return;
  const float scale = reciprocal_root<N>(x[row] + first, width, epsilon);
  if (threadIdx.x % kWarp == 0) rstd[row * groups + first / width] = scale;
}

// dy · x · rstd of one row and column, over its groups.
template <class C>
struct WeightGradient {
  Rows<const C> dy, x;
  const float* rstd;
  int32_t groups;
  int64_t width;
  __device__ float operator()(int64_t row, int64_t column) const {
    float sum = 0;
    for (int32_t g = 0; g < groups; ++g) {
      const int64_t i = g * width + column;
      sum += to_float(dy[row][i]) * (to_float(x[row][i]) * rstd[row * groups + g]);
    }
    return sum;
  }
};

template <class C, int N>
__global__ void backward_kernel(Rows<C> dx, Rows<const C> dy, Rows<const C> x, const float* rstd, const float* weight,
                                float offset, int64_t rows, int32_t groups, int64_t width) {
  int64_t row, first;
  if (!find_group(rows, groups, width, row, first)) return;
  const C *const in = x[row] + first, *const gradient = dy[row] + first;
  const int64_t start = int64_t(threadIdx.x % kWarp) * N;
  float dot = 0;  // g · x
  for (int64_t i = start; i < width; i += kWarp * N) {
    const Pack<C, N> values = load<N>(in + i), g = load<N>(gradient + i);
    for (int j = 0; j < N; ++j) dot += to_float(g.v[j]) * (offset + weight[i + j]) * to_float(values.v[j]);
  }
  const float scale = rstd[row * groups + first / width];
  const float mean = float(double(warp_sum(dot)) / double(width) * double(scale) * double(scale));
  for (int64_t i = start; i < width; i += kWarp * N) {
    const Pack<C, N> values = load<N>(in + i), g = load<N>(gradient + i);
    Pack<C, N> result;
    for (int j = 0; j < N; ++j)
      result.v[j] =
          from_float<C>(scale * fmaf(-to_float(values.v[j]), mean, to_float(g.v[j]) * (offset + weight[i + j])));
    store(dx[row] + first + i, result);
  }
}

// Whether groups as well as rows can be read in packs of n.
bool groups_in_packs(int64_t n, int64_t width, std::initializer_list<Tensor> tensors) {
  return width % n == 0 && in_packs(n, tensors);
}

dim3 blocks_for(int64_t rows, int32_t groups) { return dim3(unsigned(ceil_div(rows * groups, kWarps))); }

}  // namespace

void CudaBackend::group_rmsnorm_forward(Tensor y, Tensor x, int32_t groups, Tensor weight, double offset,
                                        double epsilon) {
  const int64_t width = weight.size();
  with_compute(x.dtype, [&](auto c) {
    using C = decltype(c);
    with_packs<4>(groups_in_packs(4, width, {y, x}), [&](auto n) {
      launch(forward_kernel<C, decltype(n)::value>, {blocks_for(x.rows, groups), kThreads, stream_}, Rows<C>(y),
             Rows<const C>(x), weight.as<float>(), float(offset), float(epsilon), x.rows, groups, width);
    });
  });
}

void CudaBackend::group_rmsnorm_backward(Tensor dx, Tensor dweight, Tensor dy, Tensor x, int32_t groups, Tensor weight,
                                         double offset, double epsilon) {
  const int64_t width = weight.size(), parts = column_parts(x.rows, width, resident_blocks());
  float* const rstd = partials<float>(x.rows * groups + parts * width);
  float* const sums = rstd + x.rows * groups;
  with_compute(x.dtype, [&](auto c) {
    using C = decltype(c);
    with_packs<4>(groups_in_packs(4, width, {dx, dy, x}), [&](auto n) {
      constexpr int N = decltype(n)::value;
      const Launch where{blocks_for(x.rows, groups), kThreads, stream_};
      launch(rstd_kernel<C, N>, where, rstd, Rows<const C>(x), float(epsilon), x.rows, groups, width);
      // Before dx, which may be dy.
      if (dweight)
        sum_columns(WeightGradient<C>{Rows<const C>(dy), Rows<const C>(x), rstd, groups, width}, sums, parts, x.rows,
                    width, stream_);
      launch(backward_kernel<C, N>, where, Rows<C>(dx), Rows<const C>(dy), Rows<const C>(x), rstd, weight.as<float>(),
             float(offset), x.rows, groups, width);
    });
  });
  if (dweight) add_partials(dweight.as<float>(), sums, parts, width, nullptr);
}

}  // namespace tunesmith::cuda
