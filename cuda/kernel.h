// What kernels share: conversions, packs of elements that move as one, sums over warps and blocks.
#pragma once

#include <initializer_list>
#include <type_traits>

#include "core/tensor.h"
#include "cuda/launch.h"

namespace tunesmith::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = ~0u;

// ---- elements -------------------------------------------------------------------------------------------------------
__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
template <class T>
__device__ inline T from_float(float x) {
  if constexpr (sizeof(T) == 2)
    return __float2bfloat16(x);
  else
    return x;
}

// Operations that are rounded each by itself: nvcc contracts plain ones into fused multiply-adds.
#ifdef TUNESMITH_CUDA_HOST
inline float multiply(float a, float b) { return a * b; }
inline float add(float a, float b) { return a + b; }
inline float subtract(float a, float b) { return a - b; }
inline float divide(float a, float b) { return a / b; }
inline float square_root(float x) { return std::sqrt(x); }
#else
__device__ inline float multiply(float a, float b) { return __fmul_rn(a, b); }
__device__ inline float add(float a, float b) { return __fadd_rn(a, b); }
__device__ inline float subtract(float a, float b) { return __fsub_rn(a, b); }
__device__ inline float divide(float a, float b) { return __fdiv_rn(a, b); }
__device__ inline float square_root(float x) { return __fsqrt_rn(x); }
#endif

// N neighbours, loaded and stored by one instruction where N · sizeof(T) is 4, 8 or 16.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  T v[N];
};
template <int N, class T>
__device__ inline Pack<T, N> load(const T* from) {
  return *reinterpret_cast<const Pack<T, N>*>(from);
}
template <class T, int N>
__device__ inline void store(T* to, const Pack<T, N>& pack) {
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

// A matrix as kernels see it.
template <class T>
struct Rows {
  T* data;
  int64_t stride;  // elements

  explicit Rows(const Tensor& t) : data(static_cast<T*>(t.data)), stride(t.stride) {}
  __device__ T* operator[](int64_t row) const { return data + row * stride; }
};

// Whether rows of all these can be read in packs of n; empty ones do not count.
inline bool in_packs(int64_t n, std::initializer_list<Tensor> tensors) {
  for (const Tensor& t : tensors)
    if (t && (reinterpret_cast<uintptr_t>(t.data) % (size_t(n) * size_of(t.dtype)) || t.cols % n ||
              (t.rows > 1 && t.stride % n)))
      return false;
  return true;
}

// ---- sums -----------------------------------------------------------------------------------------------------------
template <class T>
__device__ inline T warp_sum(T x) {
  for (int bits = kWarp / 2; bits > 0; bits /= 2) x += __shfl_xor_sync(kAllLanes, x, bits);
  return x;
}
__device__ inline float warp_max(float x) {
  for (int bits = kWarp / 2; bits > 0; bits /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, bits));
  return x;
}

// Sum over the block, the same bits in every thread. `room` holds one value per warp and is free again afterwards.
template <class T>
__device__ inline T block_sum(T x, T* room) {
  x = warp_sum(x);
  const int warp = int(threadIdx.x) / kWarp, lane = int(threadIdx.x) % kWarp, warps = int(blockDim.x) / kWarp;
  if (lane == 0) room[warp] = x;
  __syncthreads();
  x = lane < warps ? room[lane] : T(0);
  x = warp_sum(x);
  __syncthreads();
  return x;
}

// ---- dispatch -------------------------------------------------------------------------------------------------------
// Calls `use` with a value of the compute type.
template <class Use>
void with_compute(DType type, const Use& use) {
  if (type == DType::kFloat32)
    use(float());
  else
    use(__nv_bfloat16());
}
// Calls `use` with std::integral_constant of N where `packs`, else of 1.
template <int N, class Use>
void with_packs(bool packs, const Use& use) {
  if (packs)
    use(std::integral_constant<int, N>());
  else
    use(std::integral_constant<int, 1>());
}

// ---- grids ----------------------------------------------------------------------------------------------------------
constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
// Threads of a block whose work is `items` long: whole warps, `most` at most.
inline unsigned threads_for(int64_t items, int64_t most) {
  const int64_t whole = ceil_div(items, kWarp) * kWarp;
  return unsigned(whole < kWarp ? kWarp : whole > most ? most : whole);
}

}  // namespace tunesmith::cuda
