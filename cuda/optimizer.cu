// Gradient norm and the update rules: one pass over memory each, in packs of 16 bytes.
#include "cuda/backend.h"
#include "cuda/kernel.h"

namespace tunesmith::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kSumBlocks = 1024;  // whatever the device: the order of the sum is part of the result

// Calls `element(i)` for every i of [0, size) of which this thread has the packs.
template <int N, class Body>
__device__ void for_packs(int64_t size, const Body& body) {
  const int64_t step = int64_t(gridDim.x) * blockDim.x * N;
  for (int64_t i = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * N; i < size; i += step) body(i);
}

template <int N>
__global__ void sum_squares_kernel(double* partials, const float* x, int64_t size) {
  double* const room = shared_storage<double>(kWarp);
  double sum = 0;
  for_packs<N>(size, [&](int64_t i) {
    const Pack<float, N> values = load<N>(x + i);
    for (int j = 0; j < N; ++j) sum += double(values.v[j]) * double(values.v[j]);
  });
  sum = block_sum(sum, room);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

__global__ void add_sums_kernel(double* total, const double* partials, int count) {
  double* const room = shared_storage<double>(kWarp);
  double sum = 0;
  for (int i = int(threadIdx.x); i < count; i += int(blockDim.x)) sum += partials[i];
  sum = block_sum(sum, room);
  if (threadIdx.x == 0) *total = sum;
}

struct AdamWFactors {
  float beta1, rest1, beta2, rest2;
  float rate;    // learning rate / correction1
  float unbias;  // 1 / correction2
  float epsilon, decay, grad_scale;
};

template <int N>
__global__ void adamw_kernel(float* weight, float* m, float* v, const float* grad, AdamWFactors f, int64_t size) {
  for_packs<N>(size, [&](int64_t i) {
    Pack<float, N> w = load<N>(weight + i), mean = load<N>(m + i), square = load<N>(v + i);
    const Pack<float, N> g = load<N>(grad + i);
    for (int j = 0; j < N; ++j) {
      const float gradient = g.v[j] * f.grad_scale;
      mean.v[j] = f.beta1 * mean.v[j] + f.rest1 * gradient;
      square.v[j] = f.beta2 * square.v[j] + f.rest2 * gradient * gradient;
      const float direction = mean.v[j] / (sqrtf(square.v[j] * f.unbias) + f.epsilon);
      w.v[j] -= f.decay * w.v[j] + f.rate * direction;
    }
    store(weight + i, w);
    store(m + i, mean);
    store(v + i, square);
  });
}

template <int N>
__global__ void lion_kernel(float* weight, float* m, const float* grad, float beta1, float rest1, float beta2,
                            float rest2, float rate, float decay, float grad_scale, int64_t size) {
  for_packs<N>(size, [&](int64_t i) {
    Pack<float, N> w = load<N>(weight + i), mean = load<N>(m + i);
    const Pack<float, N> g = load<N>(grad + i);
    for (int j = 0; j < N; ++j) {
      const float gradient = g.v[j] * grad_scale, direction = beta1 * mean.v[j] + rest1 * gradient;
      const float sign = direction > 0 ? 1.0f : direction < 0 ? -1.0f : 0.0f;
      w.v[j] -= decay * w.v[j] + rate * sign;
      mean.v[j] = beta2 * mean.v[j] + rest2 * gradient;
    }
    store(weight + i, w);
    store(m + i, mean);
  });
}

// m null: no momentum.
template <int N>
__global__ void sgd_kernel(float* weight, float* m, const float* grad, float rate, float momentum, float decay,
                           float grad_scale, int64_t size) {
  for_packs<N>(size, [&](int64_t i) {
    Pack<float, N> w = load<N>(weight + i), direction = load<N>(grad + i), mean{};
    if (m) mean = load<N>(m + i);
    for (int j = 0; j < N; ++j) {
      direction.v[j] = direction.v[j] * grad_scale + decay * w.v[j] + momentum * mean.v[j];
      w.v[j] -= rate * direction.v[j];
    }
    if (m) store(m + i, direction);
    store(weight + i, w);
  });
}

// As many as the device holds at once and a few more; the threads go on with what is left.
dim3 blocks_for(int64_t packs, int64_t resident) {
  const int64_t all = ceil_div(packs, kThreads), most = resident * 8;
  return dim3(unsigned(all < most ? all : most));
}

}  // namespace

double CudaBackend::sum_squares(Tensor x) {
  double* const sums = partials<double>(kSumBlocks + 1);
  // One row of any length: what in_packs() asks of columns must hold for all elements.
  const Tensor flat = vector(x.data, x.dtype, x.size());
  with_packs<4>(in_packs(4, {flat}), [&](auto n) {
    constexpr int N = decltype(n)::value;
    launch(sum_squares_kernel<N>, {dim3(kSumBlocks), kThreads, stream_, kWarp * sizeof(double)}, sums, x.as<float>(),
           x.size());
  });
  launch(add_sums_kernel, {dim3(1), kThreads, stream_, kWarp * sizeof(double)}, sums + kSumBlocks, sums, kSumBlocks);
  double total = 0;
  download(&total, sums + kSumBlocks, sizeof total);
  return total;
}

void CudaBackend::adamw(Tensor weight, Tensor m, Tensor v, Tensor grad, const AdamWStep& step) {
  const AdamWFactors factors{float(step.beta1),
                             float(1 - step.beta1),
                             float(step.beta2),
                             float(1 - step.beta2),
                             float(step.learning_rate / step.correction1),
                             float(1 / step.correction2),
                             float(step.epsilon),
                             float(step.learning_rate * step.weight_decay),
                             float(step.grad_scale)};
  const int64_t size = weight.size();
  const auto flat = [&](const Tensor& t) { return vector(t.data, t.dtype, size); };
  with_packs<4>(in_packs(4, {flat(weight), flat(m), flat(v), flat(grad)}), [&](auto n) {
    constexpr int N = decltype(n)::value;
    launch(adamw_kernel<N>, {blocks_for(size / N, resident_blocks()), kThreads, stream_}, weight.as<float>(),
           m.as<float>(), v.as<float>(), grad.as<float>(), factors, size);
  });
}

void CudaBackend::lion(Tensor weight, Tensor m, Tensor grad, const LionStep& step) {
  const int64_t size = weight.size();
  const auto flat = [&](const Tensor& t) { return vector(t.data, t.dtype, size); };
  with_packs<4>(in_packs(4, {flat(weight), flat(m), flat(grad)}), [&](auto n) {
    constexpr int N = decltype(n)::value;
    launch(lion_kernel<N>, {blocks_for(size / N, resident_blocks()), kThreads, stream_}, weight.as<float>(),
           m.as<float>(), grad.as<float>(), float(step.beta1), float(1 - step.beta1), float(step.beta2),
           float(1 - step.beta2), float(step.learning_rate), float(step.learning_rate * step.weight_decay),
           float(step.grad_scale), size);
  });
}

void CudaBackend::sgd(Tensor weight, Tensor m, Tensor grad, const SgdStep& step) {
  const int64_t size = weight.size();
  const auto flat = [&](const Tensor& t) { return vector(t.data, t.dtype, size); };
  with_packs<4>(in_packs(4, {flat(weight), flat(m), flat(grad)}), [&](auto n) {
    constexpr int N = decltype(n)::value;
    launch(sgd_kernel<N>, {blocks_for(size / N, resident_blocks()), kThreads, stream_}, weight.as<float>(),
           m ? m.as<float>() : nullptr, grad.as<float>(), float(step.learning_rate), float(step.momentum),
           float(step.weight_decay), float(step.grad_scale), size);
  });
}

}  // namespace tunesmith::cuda
