// Device memory and what goes in and out of it.
#include "core/error.h"
#include "cuda/backend.h"
#include "cuda/staging.h"

namespace tunesmith::cuda {

void* CudaBackend::allocate(size_t bytes) {
  void* memory = nullptr;
  const cudaError_t status = cudaMalloc(&memory, bytes > 0 ? bytes : 1);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    size_t free_bytes = 0, total = 0;
    cudaMemGetInfo(&free_bytes, &total);
    const auto mebibytes = [](size_t n) { return std::to_string(n >> 20) + " MiB"; };
    throw CodedError("ERR_OUT_OF_MEMORY", "cannot allocate " + mebibytes(bytes) + " on " + device_name_ + ": " +
                                              mebibytes(free_bytes) + " of " + mebibytes(total) +
                                              " are free. Lower microBatchTokens, or set recompute: true");
  }
  check(status);
  return memory;
}

void CudaBackend::release(void* memory) noexcept { cudaFree(memory); }

void CudaBackend::upload(void* device, const void* host, size_t bytes) {
  staging_->upload(static_cast<char*>(device), static_cast<const char*>(host), bytes);
}

void CudaBackend::download(void* host, const void* device, size_t bytes) {
  if (bytes == 0) return;
  check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_));
  synchronize();
}

void CudaBackend::zero(void* device, size_t bytes) {
  if (bytes > 0) check(cudaMemsetAsync(device, 0, bytes, stream_));
}

void CudaBackend::synchronize() { check(cudaStreamSynchronize(stream_)); }

}  // namespace tunesmith::cuda
