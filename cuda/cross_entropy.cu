// Softmax cross-entropy with its gradient in place. A row of logits is read twice, once for its maximum and sum
// together (arXiv 1805.02867) and once for the gradient; at 128k float32 logits a row is half a megabyte, and the
// second reading finds much of it in the second-level cache.
#include <algorithm>

#include "cuda/backend.h"
#include "cuda/kernel.h"

namespace tunesmith::cuda {

namespace {

constexpr int kMostThreads = 512, kMostWarps = kMostThreads / kWarp;

// The largest logit, where it is first, and Σ e^(x - largest) without the target. -1: nothing yet.
struct Running {
  float maximum, sum;
  int32_t index;
};

__device__ inline Running joined(const Running& a, const Running& b) {
  const bool b_leads =
      b.index >= 0 && (a.index < 0 || b.maximum > a.maximum || (b.maximum == a.maximum && b.index < a.index));
  const Running &first = b_leads ? b : a, &second = b_leads ? a : b;
  if (second.index < 0) return first;
  return {first.maximum, first.sum + second.sum * expf(second.maximum - first.maximum), first.index};
}

struct Shared {
  Running warps[kMostWarps];
  float sums[kWarp];
  float maximum, factor, at_target, elsewhere;
};

template <class C, int N>
__global__ void cross_entropy_kernel(Rows<const float> logits, Rows<C> dlogits, float* loss, int32_t* correct,
                                     const int32_t* targets, const float* weights, double scale, Objective objective,
                                     int64_t first_row, int64_t width) {
  Shared& shared = *shared_storage<Shared>();
  const int64_t row = first_row + blockIdx.x, step = int64_t(blockDim.x) * N, start = int64_t(threadIdx.x) * N;
  const float* const x = logits[row];
  const int32_t target = targets[row];
  const float target_logit = x[target];

  // The target is kept out of the sum: of a target that is all but certain, the others are the whole loss.
  Running running{0, 0, -1};
  float total = 0;  // of the logits
  for (int64_t i = start; i < width; i += step) {
    const Pack<float, N> values = load<N>(x + i);
    for (int j = 0; j < N; ++j) {
      const float value = values.v[j];
      if (running.index < 0 || value > running.maximum) {
        running.sum = running.index < 0 ? 0 : running.sum * expf(running.maximum - value);
        running.maximum = value, running.index = int32_t(i + j);
      }
      total += value;
      if (i + j != target) running.sum += expf(value - running.maximum);
    }
  }
  if (objective.label_smoothing != 0) total = block_sum(total, shared.sums);
  for (int bits = kWarp / 2; bits > 0; bits /= 2) {
    Running other;
    other.maximum = __shfl_xor_sync(kAllLanes, running.maximum, bits);
    other.sum = __shfl_xor_sync(kAllLanes, running.sum, bits);
    other.index = __shfl_xor_sync(kAllLanes, running.index, bits);
    running = joined(running, other);
  }
  if (threadIdx.x % kWarp == 0) shared.warps[threadIdx.x / kWarp] = running;
  __syncthreads();
  if (threadIdx.x == 0) {
    // In float64, by one thread: a row is one of thousands, but its loss may be the smallest of them.
    for (int warp = 1; warp < int(blockDim.x) / kWarp; ++warp) running = joined(running, shared.warps[warp]);
    const double below = double(target_logit) - double(running.maximum);  // 0 where the target leads
    const double others = running.sum, sum = others + exp(below), share = exp(below) / sum;
    const double nll = below == 0 ? log1p(others) : log(sum) - below, lse = log(sum) + double(running.maximum);
    const double smoothing = objective.label_smoothing, z = objective.z_loss, even = smoothing / double(width);
    const double spread = (1 - smoothing) * nll + smoothing * (lse - double(total) / double(width)) + z * lse * lse;
    loss[row] = float(objective.dft ? share * nll : spread);
    correct[row] = running.index == target;
    const double weight = double(weights[row]) * scale * (objective.dft ? share : 1);
    shared.maximum = running.maximum;
    shared.factor = float(weight * (1 + 2 * z * lse) / sum);
    // share - 1 is -others / sum, which keeps its digits where the target is all but certain.
    shared.at_target = float(weight * (2 * z * lse * share - others / sum + smoothing - even));
    shared.elsewhere = float(weight * even);
  }
  if (!dlogits.data) return;
  __syncthreads();
  const float maximum = shared.maximum, factor = shared.factor, at_target = shared.at_target;
  const float elsewhere = shared.elsewhere;
  // The gradient may lie on the logits, its elements no further along than theirs. So a run of logits is read by all
  // before any of its gradient is written: that ends before the next run begins.
  for (int64_t run = 0; run < width; run += step) {
    const int64_t i = run + start;
    Pack<float, N> values;
    if (i < width) values = load<N>(x + i);
    __syncthreads();
    if (i >= width) continue;
    Pack<C, N> gradient;
    for (int j = 0; j < N; ++j)
      gradient.v[j] = from_float<C>(i + j == target ? at_target : factor * expf(values.v[j] - maximum) - elsewhere);
    store(dlogits[row] + i, gradient);
  }
}

}  // namespace

void CudaBackend::cross_entropy(Tensor logits, Tensor dlogits, Tensor loss, int32_t* correct, const int32_t* targets,
                                Tensor weights, double scale, const Objective& objective) {
  const int64_t in_stride = logits.stride * int64_t(sizeof(float));
  const int64_t out_stride = dlogits.stride * int64_t(size_of(dlogits.dtype));
  const int64_t out_bytes = dlogits.cols * int64_t(size_of(dlogits.dtype));
  // Packed gradients of one row lie on logits of rows before it. Rows [first, last) may go in any order only while the
  // last one's gradient ends before the first one's logits begin. The runs double in length.
  const bool packed = dlogits && dlogits.data == logits.data && out_stride < in_stride;
  for (int64_t first = 0, last = logits.rows; first < logits.rows; first = last, last = logits.rows) {
    if (packed) last = std::clamp((first * in_stride - out_bytes) / out_stride + 1, first + 1, logits.rows);
    with_compute(dlogits ? dlogits.dtype : DType::kFloat32, [&](auto c) {
      using C = decltype(c);
      with_packs<4>(in_packs(4, {logits, dlogits}), [&](auto n) {
        constexpr int N = decltype(n)::value;
        const unsigned threads = threads_for(ceil_div(logits.cols, N), kMostThreads);
        launch(cross_entropy_kernel<C, N>, {dim3(unsigned(last - first)), threads, stream_, sizeof(Shared)},
               Rows<const float>(logits), Rows<C>(dlogits), loss.as<float>(), correct, targets, weights.as<float>(),
               scale, objective, first, logits.cols);
      });
    });
  }
}

}  // namespace tunesmith::cuda
