// Adafactor's update of one matrix or vector: sums of squares per row and column, the size of the update, the update.
// What the passes hand on stays on the device.
#include "cuda/backend.h"
#include "cuda/columns.h"
#include "cuda/kernel.h"

namespace tunesmith::cuda {

namespace {

constexpr int kThreads = 256;
constexpr float kSquareEpsilon = 1e-30f;

struct Squares {
  const float* grad;
  int64_t width;
  float grad_scale;
  __device__ float operator()(int64_t row, int64_t column) const {
    const float g = grad[row * width + column] * grad_scale;
    return g * g + kSquareEpsilon;
  }
};

__device__ inline float blend(float moment, double mean, double beta2) {
  return float(beta2 * double(moment) + (1 - beta2) * mean);
}

// One block per row.
__global__ void row_kernel(float* row_moments, Squares squares, double beta2) {
  double* const room = shared_storage<double>(kWarp);
  double sum = 0;
  for (int64_t k = threadIdx.x; k < squares.width; k += blockDim.x) sum += double(squares(blockIdx.x, k));
  sum = block_sum(sum, room);
  if (threadIdx.x == 0) row_moments[blockIdx.x] = blend(row_moments[blockIdx.x], sum / double(squares.width), beta2);
}

__global__ void column_kernel(float* column_moments, const float* partials, int64_t parts, int64_t rows, int64_t width,
                              double beta2) {
  const int64_t column = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (column >= width) return;
  double sum = 0;
  for (int64_t part = 0; part < parts; ++part) sum += double(partials[part * width + column]);
  column_moments[column] = blend(column_moments[column], sum / double(rows), beta2);
}

// *mean = mean of the row moments, or 1 where there are none. One block.
__global__ void mean_kernel(double* mean, const float* row_moments, int64_t rows) {
  double* const room = shared_storage<double>(kWarp);
  double sum = 0;
  if (row_moments)
    for (int64_t i = threadIdx.x; i < rows; i += blockDim.x) sum += double(row_moments[i]);
  sum = block_sum(sum, room);
  if (threadIdx.x == 0) *mean = row_moments ? sum / double(rows) : 1.0;
}

struct Update {
  const float *grad, *row, *column;
  const double* row_mean;
  float grad_scale;
  int64_t width;

  // What a row's updates are divided by.
  __device__ float row_root(int64_t i) const { return row ? float(sqrt(double(row[i]) / *row_mean)) : 1.0f; }
  __device__ float operator()(int64_t i, int64_t k, float root) const {
    return grad[i * width + k] * grad_scale / (root * sqrtf(column[k]));
  }
};

// sums[i] = Σ_k u². One block per row.
__global__ void size_kernel(double* sums, Update update) {
  double* const room = shared_storage<double>(kWarp);
  const int64_t i = blockIdx.x;
  const float root = update.row_root(i);
  double sum = 0;
  for (int64_t k = threadIdx.x; k < update.width; k += blockDim.x) {
    const float u = update(i, k, root);
    sum += double(u) * double(u);
  }
  sum = block_sum(sum, room);
  if (threadIdx.x == 0) sums[i] = sum;
}

// *rate = learning rate / max(1, rms of the update). One block.
__global__ void rate_kernel(double* rate, const double* sums, int64_t rows, double count, double learning_rate) {
  double* const room = shared_storage<double>(kWarp);
  double sum = 0;
  for (int64_t i = threadIdx.x; i < rows; i += blockDim.x) sum += sums[i];
  sum = block_sum(sum, room);
  if (threadIdx.x == 0) *rate = learning_rate / fmax(1.0, sqrt(sum / count));
}

__global__ void update_kernel(float* weight, Update update, const double* rate, float decay) {
  const int64_t i = blockIdx.x;
  const float root = update.row_root(i), factor = float(*rate);
  for (int64_t k = threadIdx.x; k < update.width; k += blockDim.x) {
    const float w = weight[i * update.width + k];
    weight[i * update.width + k] = w - (decay * w + factor * update(i, k, root));
  }
}

}  // namespace

void CudaBackend::adafactor(Tensor weight, Tensor row, Tensor col, Tensor grad, const AdafactorStep& step) {
  const int64_t n = weight.rows, k = weight.cols, parts = column_parts(n, k, resident_blocks());
  // Scalars, row sums, and the partial sums of columns, one after the other.
  double* const mean = partials<double>(2 + n + parts * k);
  double *const rate = mean + 1, *const row_sums = mean + 2;
  auto* const column_sums = reinterpret_cast<float*>(row_sums + n);
  const Squares squares{grad.as<float>(), k, float(step.grad_scale)};
  float* const row_moments = row ? row.as<float>() : nullptr;
  const unsigned threads = threads_for(k, kThreads);
  const size_t room = kWarp * sizeof(double);
  if (row) launch(row_kernel, {dim3(unsigned(n)), threads, stream_, room}, row_moments, squares, step.beta2);
  sum_columns(squares, column_sums, parts, n, k, stream_);
  launch(column_kernel, {dim3(unsigned(ceil_div(k, kThreads))), kThreads, stream_}, col.as<float>(), column_sums, parts,
         n, k, step.beta2);
  launch(mean_kernel, {dim3(1), kThreads, stream_, room}, mean, row_moments, n);
  const Update update{grad.as<float>(), row_moments, col.as<float>(), mean, float(step.grad_scale), k};
  launch(size_kernel, {dim3(unsigned(n)), threads, stream_, room}, row_sums, update);
  launch(rate_kernel, {dim3(1), kThreads, stream_, room}, rate, row_sums, n, double(n) * double(k), step.learning_rate);
  launch(update_kernel, {dim3(unsigned(n)), threads, stream_}, weight.as<float>(), update, rate,
         float(step.learning_rate * step.weight_decay));
}

}  // namespace tunesmith::cuda
