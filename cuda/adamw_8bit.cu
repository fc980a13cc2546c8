// AdamW with moments in 8 bits: bitsandbytes' arithmetic, operation by operation, so that the codes are the same. One
// thread block per block of 256 values, a thread for each.
#include <algorithm>
#include <cmath>

#include "core/dynamic_code.h"
#include "cuda/backend.h"
#include "cuda/kernel.h"
#include "cuda/tables.h"

namespace tunesmith::cuda {

namespace {

constexpr int kThreads = int(kDynamicBlock), kWarps = kThreads / kWarp;

struct Shared {
  Tables tables;
  float m_largest[kWarps], v_largest[kWarps];
};

struct Factors {
  float beta1, rest1, beta2, rest2, grad_scale, rate, epsilon, keep;
};

// The index of the code's value nearest to x >= 0, from `first` on; Tables says how borders settle ties.
__device__ inline int nearest(const float* borders, int first, float x) {
  int low = first, high = 255;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (x > borders[middle])
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

__global__ void adamw_8bit_kernel(float* weight, Moments8 moments, const float* grad, Factors f, const Tables* tables,
                                  int64_t size) {
  Shared& shared = *shared_storage<Shared>();
  const int thread = int(threadIdx.x), warp = thread / kWarp, lane = thread % kWarp;
  for (int i = thread; i < int(sizeof(Tables) / sizeof(float)); i += kThreads)
    reinterpret_cast<float*>(&shared.tables)[i] = reinterpret_cast<const float*>(tables)[i];
  __syncthreads();
  const int64_t i = int64_t(blockIdx.x) * kDynamicBlock + thread;
  const bool exists = i < size;
  float m = 0, v = 0;
  if (exists) {
    const float g = multiply(grad[i], f.grad_scale);
    const float m_before = multiply(shared.tables.signed_code[moments.m[i]], moments.m_absmax[blockIdx.x]);
    const float v_before = multiply(shared.tables.unsigned_code[moments.v[i]], moments.v_absmax[blockIdx.x]);
    m = add(multiply(m_before, f.beta1), multiply(f.rest1, g));
    v = add(multiply(v_before, f.beta2), multiply(multiply(f.rest2, g), g));
  }
  const float m_most = warp_max(fabsf(m)), v_most = warp_max(v);
  if (lane == 0) shared.m_largest[warp] = m_most, shared.v_largest[warp] = v_most;
  __syncthreads();
  float m_largest = 0, v_largest = 0;
  for (int w = 0; w < kWarps; ++w) {
    m_largest = fmaxf(m_largest, shared.m_largest[w]);
    v_largest = fmaxf(v_largest, shared.v_largest[w]);
  }
  // All have read the old ones before the barrier above.
  if (thread == 0) moments.m_absmax[blockIdx.x] = m_largest, moments.v_absmax[blockIdx.x] = v_largest;
  if (!exists) return;
  const float direction = divide(m, add(square_root(v), f.epsilon));
  weight[i] = multiply(subtract(weight[i], multiply(f.rate, direction)), f.keep);
  // A block of zeros would divide by zero: any code stands for 0 then.
  const float relative_m = m_largest > 0 ? divide(m, m_largest) : 0.0f;
  const float relative_v = v_largest > 0 ? divide(v, v_largest) : 0.0f;
  const int index = nearest(shared.tables.signed_borders, 127, fabsf(relative_m));
  // Index 127 is 0, 127 - i the negative of 127 + i for i <= 127; 255 is 1, which has no negative.
  const int negative = index == 127 ? 126 : index == 255 ? 0 : 254 - index;
  moments.m[i] = uint8_t(copysignf(1.0f, relative_m) < 0 ? negative : index);
  moments.v[i] = uint8_t(nearest(shared.tables.unsigned_borders, 0, relative_v));
}

// The border between code i and the next: x > border belongs to the next. Where the index above is the even one, the
// middle itself does too.
void fill_borders(float (&borders)[256], const DynamicCode& code) {
  for (size_t i = 0; i < 255; ++i) {
    const float middle = (code[i] + code[i + 1]) * 0.5f;
    borders[i] = i % 2 ? std::nextafter(middle, 0.0f) : middle;
  }
  borders[255] = 2.0f;
}

}  // namespace

Tables make_tables() {
  Tables tables;
  std::copy_n(signed_dynamic_code().begin(), 256, tables.signed_code);
  std::copy_n(unsigned_dynamic_code().begin(), 256, tables.unsigned_code);
  std::copy_n(signed_dynamic_code().begin(), 256, tables.nf4_scales);
  std::copy_n(kNf4Values.begin(), 16, tables.nf4_values);
  fill_borders(tables.signed_borders, signed_dynamic_code());
  fill_borders(tables.unsigned_borders, unsigned_dynamic_code());
  return tables;
}

void CudaBackend::adamw_8bit(Tensor weight, const Moments8& moments, Tensor grad, const AdamWStep& step) {
  const double root = std::sqrt(step.correction2);
  const Factors factors{float(step.beta1),          float(1 - step.beta1),
                        float(step.beta2),          float(1 - step.beta2),
                        float(step.grad_scale),     float(step.learning_rate * root / step.correction1),
                        float(root * step.epsilon), float(1 - step.learning_rate * step.weight_decay)};
  const dim3 blocks{unsigned(ceil_div(weight.size(), kDynamicBlock))};
  launch(adamw_8bit_kernel, {blocks, kThreads, stream_, sizeof(Shared)}, weight.as<float>(), moments, grad.as<float>(),
         factors, tables_, weight.size());
}

}  // namespace tunesmith::cuda
