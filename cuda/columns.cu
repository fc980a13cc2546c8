// Scaling of columns and sums over them, as low-rank adapters need them beside their matmuls.
#include "cuda/columns.h"

#include "cuda/backend.h"

namespace tunesmith::cuda {

namespace {

constexpr int kThreads = 256;

__global__ void add_partial_sums(float* sums, const float* partials, int64_t parts, int64_t width,
                                 const float* divisor) {
  const int64_t column = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (column >= width) return;
  float sum = 0;
  for (int64_t part = 0; part < parts; ++part) sum += partials[part * width + column];
  sums[column] += divisor ? sum / divisor[column] : sum;
}

// y = x · (scale · gain + shift) + bias, or y += x · (scale · gain + shift).
template <class C, int N, bool add>
__global__ void scale_kernel(Rows<C> y, Rows<C> x, const float* gain, float scale, float shift, const float* bias,
                             int64_t width) {
  const int64_t column = (int64_t(blockIdx.y) * blockDim.x + threadIdx.x) * N, row = blockIdx.x;
  if (column >= width) return;
  Pack<C, N> values = load<N>(x[row] + column), before;
  if constexpr (add) before = load<N>(y[row] + column);
  for (int i = 0; i < N; ++i) {
    const float factor = (gain ? scale * gain[column + i] : scale) + shift, scaled = to_float(values.v[i]) * factor;
    if constexpr (add)
      values.v[i] = from_float<C>(to_float(before.v[i]) + scaled);
    else
      values.v[i] = from_float<C>(bias ? scaled + bias[column + i] : scaled);
  }
  store(y[row] + column, values);
}

template <bool add>
void scale_rows(Tensor y, Tensor x, Tensor gain, double scale, double shift, Tensor bias, cudaStream_t stream) {
  with_compute(y.dtype, [&](auto c) {
    using C = decltype(c);
    with_packs<16 / sizeof(C)>(in_packs(16 / sizeof(C), {y, x}), [&](auto n) {
      constexpr int N = decltype(n)::value;
      const unsigned threads = threads_for(y.cols / N, kThreads);
      const dim3 blocks{unsigned(y.rows), unsigned(ceil_div(y.cols / N, threads))};
      launch(scale_kernel<C, N, add>, {blocks, threads, stream}, Rows<C>(y), Rows<C>(x),
             gain ? gain.as<float>() : nullptr, float(scale), float(shift), bias ? bias.as<float>() : nullptr, y.cols);
    });
  });
}

template <class C>
struct Products {
  Rows<C> a, b;
  __device__ float operator()(int64_t row, int64_t column) const {
    return to_float(a[row][column]) * to_float(b[row][column]);
  }
};

}  // namespace

void CudaBackend::add_partials(float* sums, const float* partials, int64_t parts, int64_t width, const float* divisor) {
  launch(add_partial_sums, {dim3(unsigned(ceil_div(width, kThreads))), kThreads, stream_}, sums, partials, parts, width,
         divisor);
}

void CudaBackend::add_scaled(Tensor y, Tensor x, Tensor gain, double scale, double shift) {
  scale_rows<true>(y, x, gain, scale, shift, Tensor{}, stream_);
}

void CudaBackend::scale_columns(Tensor y, Tensor x, Tensor gain, double scale, double shift, Tensor bias) {
  scale_rows<false>(y, x, gain, scale, shift, bias, stream_);
}

void CudaBackend::column_dots(Tensor out, Tensor a, Tensor b, Tensor divisor) {
  const int64_t parts = column_parts(a.rows, a.cols, resident_blocks());
  float* const sums = partials<float>(parts * a.cols);
  with_compute(a.dtype, [&](auto c) {
    using C = decltype(c);
    sum_columns(Products<C>{Rows<C>(a), Rows<C>(b)}, sums, parts, a.rows, a.cols, stream_);
  });
  add_partials(out.as<float>(), sums, parts, a.cols, divisor.as<float>());
}

}  // namespace tunesmith::cuda
