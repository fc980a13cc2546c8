// Pinned memory through which uploads pass, so that the caller's memory is free again at once and the device copies
// while the host goes on. Two halves: one is filled while the other is copied.
#pragma once

#include <algorithm>
#include <cstring>

#include "cuda/launch.h"

namespace tunesmith::cuda {

class Staging {
 public:
  explicit Staging(cudaStream_t stream) : stream_(stream) {
    void* memory = nullptr;
    check(cudaMallocHost(&memory, 2 * kHalf));
    memory_ = static_cast<char*>(memory);
    for (cudaEvent_t& event : copied_) check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    for (const cudaEvent_t event : copied_) check(cudaEventRecord(event, stream_));
  }
  ~Staging() {
    for (const cudaEvent_t event : copied_) cudaEventDestroy(event);
    cudaFreeHost(memory_);
  }
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  void upload(char* device, const char* host, size_t bytes) {
    while (bytes > 0) {
      if (used_ == kHalf) next_half();
      const size_t part = std::min(bytes, kHalf - used_);
      char* const room = memory_ + half_ * kHalf + used_;
      std::memcpy(room, host, part);
      check(cudaMemcpyAsync(device, room, part, cudaMemcpyHostToDevice, stream_));
      used_ += std::min((part + 15) / 16 * 16, kHalf - used_);
      device += part, host += part, bytes -= part;
    }
  }

 private:
#ifdef TUNESMITH_CUDA_HOST
  static constexpr size_t kHalf = size_t(1) << 14;  // small, so that tests come round to the first half again
#else
  static constexpr size_t kHalf = size_t(8) << 20;
#endif

  // The other half, once the copies out of it are done.
  void next_half() {
    check(cudaEventRecord(copied_[half_], stream_));
    half_ = 1 - half_, used_ = 0;
    check(cudaEventSynchronize(copied_[half_]));
  }

  cudaStream_t stream_;
  char* memory_ = nullptr;
  cudaEvent_t copied_[2] = {};
  size_t half_ = 0, used_ = 0;
};

}  // namespace tunesmith::cuda
