// Muon's update of one matrix: momentum, orthogonalised by five Newton-Schulz iterations in float32 matmuls. The Gram
// matrix is of the smaller side, whichever that is, so that nothing is transposed.
#include <algorithm>
#include <cmath>

#include "cuda/backend.h"
#include "cuda/kernel.h"

namespace tunesmith::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kSumBlocks = 1024;

// m, then x = μ m + (1-μ) g, and the sum of its squares per block.
__global__ void momentum_kernel(float* x, double* sums, float* m, const float* grad, float momentum, float rest,
                                float grad_scale, int64_t size) {
  double* const room = shared_storage<double>(kWarp);
  double sum = 0;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < size; i += int64_t(gridDim.x) * blockDim.x) {
    const float g = grad[i] * grad_scale, mean = momentum * m[i] + rest * g, u = momentum * mean + rest * g;
    m[i] = mean;
    x[i] = u;
    sum += double(u) * double(u);
  }
  sum = block_sum(sum, room);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// Every block sums the sums itself, in the same order.
__global__ void normalize_kernel(float* x, const double* sums, int count, int64_t size) {
  double* const room = shared_storage<double>(kWarp);
  double sum = 0;
  for (int i = int(threadIdx.x); i < count; i += int(blockDim.x)) sum += sums[i];
  sum = block_sum(sum, room);
  const float factor = float(1 / fmax(sqrt(sum), 1e-7));
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < size; i += int64_t(gridDim.x) * blockDim.x)
    x[i] *= factor;
}

__global__ void update_kernel(float* weight, const float* x, float decay, float rate, int64_t size) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < size) weight[i] -= decay * weight[i] + rate * x[i];
}

}  // namespace

void CudaBackend::muon(Tensor weight, Tensor m, Tensor grad, Tensor scratch, const MuonStep& step) {
  const int64_t n = weight.rows, k = weight.cols, size = n * k, small = std::min(n, k);
  float *x = scratch.as<float>(), *y = x + size, *const gram = y + size, *const factor = gram + small * small;
  const int blocks = int(std::min<int64_t>(kSumBlocks, ceil_div(size, kThreads)));
  const size_t room = kWarp * sizeof(double);
  double* const sums = partials<double>(blocks);
  launch(momentum_kernel, {dim3(unsigned(blocks)), kThreads, stream_, room}, x, sums, m.as<float>(), grad.as<float>(),
         float(step.momentum), float(1 - step.momentum), float(step.grad_scale), size);
  launch(normalize_kernel, {dim3(unsigned(blocks)), kThreads, stream_, room}, x, sums, blocks, size);

  // Column-major, x is [k, n]: xᵀ of the comments in backend.h.
  const DType f = DType::kFloat32;
  const bool wide_matrix = n <= k;
  const Matmul gram_of =
      wide_matrix ? Matmul{n, n, k, true, false, k, k, n, f, f} : Matmul{k, k, n, false, true, k, k, k, f, f};
  Matmul squared{small, small, small, false, false, small, small, small, f, f};
  squared.alpha = 2.0315f, squared.beta = -4.7750f;
  Matmul applied =
      wide_matrix ? Matmul{k, n, n, false, false, k, n, k, f, f} : Matmul{k, n, k, false, false, k, k, k, f, f};
  applied.beta = 3.4445f;
  for (int iteration = 0; iteration < 5; ++iteration) {
    run_matmul(gram_of, gram, x, x, nullptr);
    cast(vector(factor, f, small * small), vector(gram, f, small * small));
    run_matmul(squared, factor, gram, gram, nullptr);
    cast(vector(y, f, size), vector(x, f, size));
    run_matmul(applied, y, wide_matrix ? x : factor, wide_matrix ? factor : x, nullptr);
    std::swap(x, y);
  }
  launch(update_kernel, {dim3(unsigned(ceil_div(size, kThreads))), kThreads, stream_}, weight.as<float>(), x,
         float(step.learning_rate * step.weight_decay),
         float(step.learning_rate * 0.2 * std::sqrt(double(std::max(n, k)))), size);
}

}  // namespace tunesmith::cuda
