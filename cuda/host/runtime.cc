// The part of the CUDA runtime that the backend calls, on the CPU. Memory starts as NaNs between guard zones, which are
// checked when it is freed. A copy from pinned memory happens as late as the stream's order lets it, so that memory
// that is used again too early shows in the results.
#include "cuda/host/runtime.h"

#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "core/error.h"

namespace tunesmith::cuda::host {

namespace {

constexpr size_t kGuard = 4096;
constexpr unsigned char kGuardByte = 0xf7, kNan = 0xff;

struct Late {
  void* to;
  const void* from;
  size_t bytes;
};

struct Memory {
  std::mutex mutex;
  std::map<uintptr_t, size_t> device;  // start, bytes
  std::map<uintptr_t, size_t> pinned_bytes;
  std::map<cudaStream_t, std::vector<Late>> late;
};
Memory& memory() {
  static auto* const all = new Memory;  // never destroyed: backends may outlive static objects
  return *all;
}

bool is_pinned(const void* pointer) {
  const auto at = reinterpret_cast<uintptr_t>(pointer);
  auto found = memory().pinned_bytes.upper_bound(at);
  return found != memory().pinned_bytes.begin() && at < (--found)->first + found->second;
}

void carry_out(cudaStream_t stream) {
  auto& late = memory().late[stream];
  for (const Late& copy : late) std::memcpy(copy.to, copy.from, copy.bytes);
  late.clear();
}

}  // namespace

void check_range(const void* pointer, size_t bytes, const char* what) {
  const std::lock_guard lock(memory().mutex);
  const auto at = reinterpret_cast<uintptr_t>(pointer);
  auto found = memory().device.upper_bound(at);
  if (bytes == 0 || (found != memory().device.begin() && (--found)->first + found->second >= at + bytes)) return;
  throw CodedError("ERR_KERNEL", std::string(what) + ": " + std::to_string(bytes) + " bytes are not device memory");
}

}  // namespace tunesmith::cuda::host

using namespace tunesmith::cuda::host;

extern "C" {

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  if (bytes > (size_t(1) << 46)) return cudaErrorMemoryAllocation;
  const size_t rounded = (bytes + 255) / 256 * 256;
  auto* const base =
      static_cast<unsigned char*>(std::aligned_alloc(kGuard, kGuard * 2 + (rounded + 4095) / 4096 * 4096));
  if (!base) return cudaErrorMemoryAllocation;
  std::memset(base, kGuardByte, kGuard);
  std::memset(base + kGuard, kNan, bytes);
  std::memset(base + kGuard + bytes, kGuardByte, rounded - bytes + kGuard);
  *pointer = base + kGuard;
  const std::lock_guard lock(memory().mutex);
  memory().device[reinterpret_cast<uintptr_t>(*pointer)] = bytes;
  return cudaSuccess;
}

cudaError_t cudaFree(void* pointer) {
  if (!pointer) return cudaSuccess;
  const std::lock_guard lock(memory().mutex);
  const auto found = memory().device.find(reinterpret_cast<uintptr_t>(pointer));
  if (found == memory().device.end()) return cudaErrorInvalidDevicePointer;
  const size_t bytes = found->second, rounded = (bytes + 255) / 256 * 256;
  auto* const base = static_cast<unsigned char*>(pointer) - kGuard;
  for (size_t i = 0; i < kGuard + rounded - bytes; ++i)
    if ((i < kGuard && base[i] != kGuardByte) || base[kGuard + bytes + i] != kGuardByte) {
      std::fprintf(stderr, "cuda-host: a kernel wrote around an allocation of %zu bytes\n", bytes);
      std::abort();
    }
  memory().device.erase(found);
  std::free(base);
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void** pointer, size_t bytes) {
  *pointer = std::malloc(bytes);
  if (!*pointer) return cudaErrorMemoryAllocation;
  const std::lock_guard lock(memory().mutex);
  memory().pinned_bytes[reinterpret_cast<uintptr_t>(*pointer)] = bytes;
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void* pointer) {
  const std::lock_guard lock(memory().mutex);
  memory().pinned_bytes.erase(reinterpret_cast<uintptr_t>(pointer));
  std::free(pointer);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  if (kind == cudaMemcpyHostToDevice) check_range(to, bytes, "an upload");
  if (kind == cudaMemcpyDeviceToHost) check_range(from, bytes, "a download");
  const std::lock_guard lock(memory().mutex);
  if (kind == cudaMemcpyHostToDevice && is_pinned(from)) {
    memory().late[stream].push_back({to, from, bytes});
    return cudaSuccess;
  }
  carry_out(stream);
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* pointer, int value, size_t bytes, cudaStream_t stream) {
  check_range(pointer, bytes, "zero");
  const std::lock_guard lock(memory().mutex);
  carry_out(stream);
  std::memset(pointer, value, bytes);
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = reinterpret_cast<cudaStream_t>(new char);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const std::lock_guard lock(memory().mutex);
  carry_out(stream);
  memory().late.erase(stream);
  delete reinterpret_cast<char*>(stream);
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const std::lock_guard lock(memory().mutex);
  carry_out(stream);
  return cudaSuccess;
}

// An event is the stream it was recorded on: waiting for it carries out what is late there.
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = reinterpret_cast<cudaEvent_t>(new cudaStream_t(nullptr));
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete reinterpret_cast<cudaStream_t*>(event);
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  *reinterpret_cast<cudaStream_t*>(event) = stream;
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return cudaStreamSynchronize(*reinterpret_cast<cudaStream_t*>(event));
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int) { return cudaSuccess; }
cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  std::memset(properties, 0, sizeof *properties);
  std::snprintf(properties->name, sizeof properties->name, "CUDA kernels on the CPU");
  properties->major = 9;
  properties->multiProcessorCount = 3;
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total) {
  *free_bytes = *total = size_t(1) << 34;
  return cudaSuccess;
}
cudaError_t cudaGetLastError() { return cudaSuccess; }
const char* cudaGetErrorName(cudaError_t) { return "cudaError"; }
const char* cudaGetErrorString(cudaError_t) { return "out of memory"; }

}  // extern "C"
