// Root mean square normalisation (arXiv 1910.07467) with the residual addition fused in front: a row comes from memory
// once, and the second pass over it finds it in the first-level cache.
#include "cuda/backend.h"
#include "cuda/kernel.h"

namespace tunesmith::cuda {

namespace {

constexpr int kPack = 4;  // 16 bytes of float32, 8 of bfloat16
constexpr int kMostThreads = 512;

// One block per row. Every thread reads again only what it wrote itself, so that no barrier is needed between the
// passes but that of the sum.
template <class C, int N>
__global__ void forward_kernel(Rows<float> out, Rows<C> y, float* rstd, Rows<const float> residual, Rows<const C> delta,
                               const float* weight, float offset, int64_t width, float epsilon) {
  float* const room = shared_storage<float>(kWarp);
  const int64_t row = blockIdx.x, step = int64_t(blockDim.x) * N, start = int64_t(threadIdx.x) * N;
  const float* x = residual[row];
  float squares = 0;
  for (int64_t i = start; i < width; i += step) {
    Pack<float, N> value = load<N>(x + i);
    if (delta.data) {
      const Pack<C, N> more = load<N>(delta[row] + i);
      for (int j = 0; j < N; ++j) value.v[j] += to_float(more.v[j]);
      store(out[row] + i, value);
    }
    for (int j = 0; j < N; ++j) squares += value.v[j] * value.v[j];
  }
  if (delta.data) x = out[row];
  const float scale = 1.0f / sqrtf(block_sum(squares, room) / float(width) + epsilon);
  if (threadIdx.x == 0) rstd[row] = scale;
  for (int64_t i = start; i < width; i += step) {
    const Pack<float, N> value = load<N>(x + i), w = load<N>(weight + i);
    Pack<C, N> result;
    for (int j = 0; j < N; ++j) result.v[j] = from_float<C>(value.v[j] * scale * (offset + w.v[j]));
    store(y[row] + i, result);
  }
}

template <class C, int N>
__global__ void apply_kernel(Rows<C> y, Rows<const float> x, const float* rstd, const float* weight, float offset,
                             int64_t width) {
  const int64_t row = blockIdx.x;
  const float scale = rstd[row];
  for (int64_t i = int64_t(threadIdx.x) * N; i < width; i += int64_t(blockDim.x) * N) {
    const Pack<float, N> value = load<N>(x[row] + i), w = load<N>(weight + i);
    Pack<C, N> result;
    for (int j = 0; j < N; ++j) result.v[j] = from_float<C>(value.v[j] * scale * (offset + w.v[j]));
    store(y[row] + i, result);
  }
}

// Block p takes rows p, p + blocks, ...: its part of dweight stays in shared memory, each element with the thread that
// owns it, and is written once.
template <class C, int N>
__global__ void backward_kernel(Rows<float> dx, Rows<C> dx_compute, float* partials, Rows<const C> dy,
                                Rows<const float> x, const float* rstd, const float* weight, float offset, int64_t rows,
                                int64_t width) {
  float* const room = shared_storage<float>(size_t(partials ? kWarp + width : kWarp));
  float* const dweight = room + kWarp;
  const int64_t step = int64_t(blockDim.x) * N, start = int64_t(threadIdx.x) * N;
  if (partials)
    for (int64_t i = start; i < width; i += step) store(dweight + i, Pack<float, N>{});
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    float dot = 0;  // g · x
    for (int64_t i = start; i < width; i += step) {
      const Pack<float, N> value = load<N>(x[row] + i), w = load<N>(weight + i);
      const Pack<C, N> gradient = load<N>(dy[row] + i);
      for (int j = 0; j < N; ++j) dot += to_float(gradient.v[j]) * (offset + w.v[j]) * value.v[j];
    }
    // In float64: what is subtracted from g may be nearly all of it.
    const float scale = rstd[row];
    const float mean = float(double(block_sum(dot, room)) / double(width) * double(scale) * double(scale));
    for (int64_t i = start; i < width; i += step) {
      const Pack<float, N> value = load<N>(x[row] + i), w = load<N>(weight + i);
      const Pack<C, N> gradient = load<N>(dy[row] + i);
      Pack<float, N> sum = load<N>(dx[row] + i);
      for (int j = 0; j < N; ++j)
        sum.v[j] += scale * fmaf(-value.v[j], mean, to_float(gradient.v[j]) * (offset + w.v[j]));
      store(dx[row] + i, sum);
      if (dx_compute.data) {
        Pack<C, N> copy;
        for (int j = 0; j < N; ++j) copy.v[j] = from_float<C>(sum.v[j]);
        store(dx_compute[row] + i, copy);
      }
      if (partials)
        for (int j = 0; j < N; ++j) dweight[i + j] += to_float(gradient.v[j]) * (value.v[j] * scale);
    }
  }
  if (partials)
    for (int64_t i = start; i < width; i += step)
      store(partials + int64_t(blockIdx.x) * width + i, load<N>(dweight + i));
}

}  // namespace

void CudaBackend::rmsnorm_forward(Tensor out, Tensor y, Tensor rstd, Tensor residual, Tensor delta, Tensor weight,
                                  double offset, double epsilon) {
  with_compute(y.dtype, [&](auto c) {
    using C = decltype(c);
    with_packs<kPack>(in_packs(kPack, {out, y, residual, delta, weight}), [&](auto n) {
      constexpr int N = decltype(n)::value;
      const unsigned threads = threads_for(ceil_div(y.cols, N), kMostThreads);
      launch(forward_kernel<C, N>, {dim3(unsigned(y.rows)), threads, stream_, kWarp * sizeof(float)}, Rows<float>(out),
             Rows<C>(y), rstd.as<float>(), Rows<const float>(residual), Rows<const C>(delta), weight.as<float>(),
             float(offset), y.cols, float(epsilon));
    });
  });
}

void CudaBackend::rmsnorm_apply(Tensor y, Tensor x, Tensor rstd, Tensor weight, double offset) {
  with_compute(y.dtype, [&](auto c) {
    using C = decltype(c);
    with_packs<kPack>(in_packs(kPack, {y, x, weight}), [&](auto n) {
      constexpr int N = decltype(n)::value;
      launch(apply_kernel<C, N>, {dim3(unsigned(y.rows)), threads_for(ceil_div(y.cols, N), kMostThreads), stream_},
             Rows<C>(y), Rows<const float>(x), rstd.as<float>(), weight.as<float>(), float(offset), y.cols);
    });
  });
}

void CudaBackend::rmsnorm_backward(Tensor dx, Tensor dx_compute, Tensor dweight, Tensor dy, Tensor x, Tensor rstd,
                                   Tensor weight, double offset) {
  if (x.rows == 0) return;
  const int64_t width = x.cols, parts = x.rows < resident_blocks() ? x.rows : resident_blocks();
  float* const sums = dweight ? partials<float>(parts * width) : nullptr;
  with_compute(dy.dtype, [&](auto c) {
    using C = decltype(c);
    with_packs<kPack>(in_packs(kPack, {dx, dx_compute, dy, x, weight}), [&](auto n) {
      constexpr int N = decltype(n)::value;
      const size_t shared = size_t(dweight ? kWarp + width : kWarp) * sizeof(float);
      launch(backward_kernel<C, N>,
             {dim3(unsigned(parts)), threads_for(ceil_div(width, N), kMostThreads), stream_, shared}, Rows<float>(dx),
             Rows<C>(dx_compute), sums, Rows<const C>(dy), Rows<const float>(x), rstd.as<float>(), weight.as<float>(),
             float(offset), x.rows, width);
    });
  });
  if (dweight) add_partials(dweight.as<float>(), sums, parts, width, nullptr);
}

}  // namespace tunesmith::cuda
