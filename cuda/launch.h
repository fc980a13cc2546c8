// The one way to start a kernel, and what a kernel file needs to be compiled by nvcc as well as by g++ for the CPU
// (cuda/host).
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <source_location>

#ifdef TUNESMITH_CUDA_HOST
#include "cuda/host/fibers.h"
#endif

namespace tunesmith::cuda {

// Throws CodedError ERR_OUT_OF_MEMORY or ERR_DEVICE with the runtime's words.
void check(cudaError_t status, std::source_location where = std::source_location::current());

struct Launch {
  dim3 blocks;
  unsigned threads;
  cudaStream_t stream;
  size_t shared_bytes = 0;  // dynamic shared memory, of which shared_storage() makes a struct
  std::source_location where = std::source_location::current();
};

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), const Launch& l, Arguments... arguments) {
  if (l.blocks.x == 0 || l.blocks.y == 0 || l.blocks.z == 0) return;
#ifdef TUNESMITH_CUDA_HOST
  check(cudaStreamSynchronize(l.stream), l.where);  // copies that are still under way arrive
  host::launch(kernel, l.blocks, dim3(l.threads), l.shared_bytes, arguments...);
#else
  // Beyond 48 KiB a kernel must ask; asking again costs a microsecond, only for kernels that need it.
  if (l.shared_bytes > 48 * 1024)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(l.shared_bytes)), l.where);
  // clang-format off
  kernel<<<l.blocks, l.threads, l.shared_bytes, l.stream>>>(Parameters(arguments)...);
  // clang-format on
  check(cudaGetLastError(), l.where);
#endif
}

// The block's dynamic shared memory.
template <class T>
__device__ inline T* shared_storage([[maybe_unused]] size_t count = 1) {
#ifdef TUNESMITH_CUDA_HOST
  return static_cast<T*>(host::shared_memory(count * sizeof(T)));
#else
  extern __shared__ __align__(128) unsigned char dynamic_shared_memory[];
  return reinterpret_cast<T*>(dynamic_shared_memory);
#endif
}

}  // namespace tunesmith::cuda
