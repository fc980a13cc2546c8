// Layer normalisation (arXiv 1607.06450) with the residual addition fused in front, as rmsnorm.cu.
#include "cuda/backend.h"
#include "cuda/kernel.h"

namespace tunesmith::cuda {

namespace {

constexpr int kPack = 4;
constexpr int kMostThreads = 512;

template <class C, int N>
__device__ inline void normalize(C* y, const float* x, float mean, float rstd, const float* weight, const float* bias,
                                 int64_t width) {
  for (int64_t i = int64_t(threadIdx.x) * N; i < width; i += int64_t(blockDim.x) * N) {
    const Pack<float, N> value = load<N>(x + i);
    Pack<C, N> result;
    for (int j = 0; j < N; ++j) {
      const float scaled = (value.v[j] - mean) * rstd * weight[i + j];
      result.v[j] = from_float<C>(bias ? scaled + bias[i + j] : scaled);
    }
    store(y + i, result);
  }
}

// One block per row. The variance is taken around the mean, in a pass of its own: E[x²] - E[x]² cancels.
template <class C, int N>
__global__ void forward_kernel(Rows<float> out, Rows<C> y, Rows<float> statistics, Rows<const float> residual,
                               Rows<const C> delta, const float* weight, const float* bias, int64_t width,
                               float epsilon) {
  float* const room = shared_storage<float>(kWarp);
  const int64_t row = blockIdx.x, step = int64_t(blockDim.x) * N, start = int64_t(threadIdx.x) * N;
  const float* x = residual[row];
  float sum = 0;
  for (int64_t i = start; i < width; i += step) {
    Pack<float, N> value = load<N>(x + i);
    if (delta.data) {
      const Pack<C, N> more = load<N>(delta[row] + i);
      for (int j = 0; j < N; ++j) value.v[j] += to_float(more.v[j]);
      store(out[row] + i, value);
    }
    for (int j = 0; j < N; ++j) sum += value.v[j];
  }
  if (delta.data) x = out[row];
  const float mean = block_sum(sum, room) / float(width);
  float squares = 0;
  for (int64_t i = start; i < width; i += step) {
    const Pack<float, N> value = load<N>(x + i);
    for (int j = 0; j < N; ++j) squares += (value.v[j] - mean) * (value.v[j] - mean);
  }
  const float rstd = 1.0f / sqrtf(block_sum(squares, room) / float(width) + epsilon);
  if (threadIdx.x == 0) statistics[0][row] = mean, statistics[1][row] = rstd;
  normalize<C, N>(y[row], x, mean, rstd, weight, bias, width);
}

template <class C, int N>
__global__ void apply_kernel(Rows<C> y, Rows<const float> x, Rows<float> statistics, const float* weight,
                             const float* bias, int64_t width) {
  const int64_t row = blockIdx.x;
  normalize<C, N>(y[row], x[row], statistics[0][row], statistics[1][row], weight, bias, width);
}

// Block p takes rows p, p + blocks, ...; its parts of dweight and dbias stay in shared memory.
template <class C, int N>
__global__ void backward_kernel(Rows<float> dx, Rows<C> dx_compute, float* dweight_partials, float* dbias_partials,
                                Rows<const C> dy, Rows<const float> x, Rows<float> statistics, const float* weight,
                                int64_t rows, int64_t width) {
  const bool sums = dweight_partials || dbias_partials;
  float* const room = shared_storage<float>(size_t(sums ? kWarp + 2 * width : kWarp));
  float *const dweight = room + kWarp, *const dbias = dweight + width;
  const int64_t step = int64_t(blockDim.x) * N, start = int64_t(threadIdx.x) * N;
  if (sums)
    for (int64_t i = start; i < width; i += step)
      for (int j = 0; j < N; ++j) dweight[i + j] = dbias[i + j] = 0;
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const float mean = statistics[0][row], rstd = statistics[1][row];
    float of_g = 0, of_product = 0;  // sums of g and of g · x̂
    for (int64_t i = start; i < width; i += step) {
      const Pack<float, N> value = load<N>(x[row] + i);
      const Pack<C, N> gradient = load<N>(dy[row] + i);
      for (int j = 0; j < N; ++j) {
        const float g = to_float(gradient.v[j]) * weight[i + j];
        of_g += g;
        of_product += g * ((value.v[j] - mean) * rstd);
      }
    }
    of_g = block_sum(of_g, room) / float(width);
    of_product = block_sum(of_product, room) / float(width);
    for (int64_t i = start; i < width; i += step) {
      const Pack<float, N> value = load<N>(x[row] + i);
      const Pack<C, N> gradient = load<N>(dy[row] + i);
      Pack<float, N> sum = load<N>(dx[row] + i);
      Pack<C, N> copy;
      for (int j = 0; j < N; ++j) {
        const float normalised = (value.v[j] - mean) * rstd, g = to_float(gradient.v[j]) * weight[i + j];
        sum.v[j] += rstd * fmaf(-normalised, of_product, g - of_g);
        copy.v[j] = from_float<C>(sum.v[j]);
        if (sums) dweight[i + j] += to_float(gradient.v[j]) * normalised, dbias[i + j] += to_float(gradient.v[j]);
      }
      store(dx[row] + i, sum);
      if (dx_compute.data) store(dx_compute[row] + i, copy);
    }
  }
  const int64_t part = int64_t(blockIdx.x) * width;
  for (int64_t i = start; i < width; i += step)
    for (int j = 0; j < N; ++j) {
      if (dweight_partials) dweight_partials[part + i + j] = dweight[i + j];
      if (dbias_partials) dbias_partials[part + i + j] = dbias[i + j];
    }
}

const float* floats(const Tensor& vector) { return vector ? vector.as<float>() : nullptr; }

}  // namespace

void CudaBackend::layernorm_forward(Tensor out, Tensor y, Tensor statistics, Tensor residual, Tensor delta,
                                    Tensor weight, Tensor bias, double epsilon) {
  with_compute(y.dtype, [&](auto c) {
    using C = decltype(c);
    with_packs<kPack>(in_packs(kPack, {out, y, residual, delta}), [&](auto n) {
      constexpr int N = decltype(n)::value;
      launch(forward_kernel<C, N>,
             {dim3(unsigned(y.rows)), threads_for(ceil_div(y.cols, N), kMostThreads), stream_, kWarp * sizeof(float)},
             Rows<float>(out), Rows<C>(y), Rows<float>(statistics), Rows<const float>(residual), Rows<const C>(delta),
             weight.as<float>(), floats(bias), y.cols, float(epsilon));
    });
  });
}

void CudaBackend::layernorm_apply(Tensor y, Tensor x, Tensor statistics, Tensor weight, Tensor bias) {
  with_compute(y.dtype, [&](auto c) {
    using C = decltype(c);
    with_packs<kPack>(in_packs(kPack, {y, x}), [&](auto n) {
      constexpr int N = decltype(n)::value;
      launch(apply_kernel<C, N>, {dim3(unsigned(y.rows)), threads_for(ceil_div(y.cols, N), kMostThreads), stream_},
             Rows<C>(y), Rows<const float>(x), Rows<float>(statistics), weight.as<float>(), floats(bias), y.cols);
    });
  });
}

void CudaBackend::layernorm_backward(Tensor dx, Tensor dx_compute, Tensor dweight, Tensor dbias, Tensor dy, Tensor x,
                                     Tensor statistics, Tensor weight) {
  if (x.rows == 0) return;
  const int64_t width = x.cols, parts = x.rows < resident_blocks() ? x.rows : resident_blocks();
  float* const memory = dweight || dbias ? partials<float>(2 * parts * width) : nullptr;
  float *const dweight_sums = dweight ? memory : nullptr, *const dbias_sums = dbias ? memory + parts * width : nullptr;
  with_compute(dy.dtype, [&](auto c) {
    using C = decltype(c);
    with_packs<kPack>(in_packs(kPack, {dx, dx_compute, dy, x}), [&](auto n) {
      constexpr int N = decltype(n)::value;
      const size_t shared = size_t(memory ? kWarp + 2 * width : kWarp) * sizeof(float);
      launch(backward_kernel<C, N>,
             {dim3(unsigned(parts)), threads_for(ceil_div(width, N), kMostThreads), stream_, shared}, Rows<float>(dx),
             Rows<C>(dx_compute), dweight_sums, dbias_sums, Rows<const C>(dy), Rows<const float>(x),
             Rows<float>(statistics), weight.as<float>(), x.rows, width);
    });
  });
  if (dweight) add_partials(dweight.as<float>(), dweight_sums, parts, width, nullptr);
  if (dbias) add_partials(dbias.as<float>(), dbias_sums, parts, width, nullptr);
}

}  // namespace tunesmith::cuda
