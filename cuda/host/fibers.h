// Runs CUDA kernels on the CPU, for tests: what nvcc and the GPU give a kernel file is given here to g++.
//
// Every thread of a block is a fiber. A fiber runs until it waits: at __syncthreads() for the block, or in a shuffle, a
// ballot or a tensor-core instruction for its warp. Between two such points a program without data races does not care
// in which order the fibers ran, so they run in the order $TUNESMITH_FIBER_ORDER names, and results must be the same in
// each of them:
//   forward   the first warp runs as far as the block lets it, lane after lane, then the second one, ...
//   reverse   the same from the last lane of the last warp of the last block
//   random:N  any warp that can run, its lanes in any order, the blocks in any order; N is the seed
// What hardware leaves undefined fails here: threads of a block at different barriers, lanes of a warp in different
// shuffles, a mask without all lanes, a thread that ended where others wait for it.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <tuple>

namespace tunesmith::cuda::host {

constexpr int kLanes = 32;

// What all lanes of a warp do at once: operands[lane] points to the lane's own, which takes its result.
using WarpOperation = void (*)(void* const operands[kLanes]);

struct Place {
  uint3 thread, block;
  dim3 threads, blocks;
};
// Of the running fiber.
extern thread_local Place here;

void wait_for_block(std::source_location where);
void wait_for_warp(unsigned mask, WarpOperation operation, void* operand, std::source_location where);
// The block's dynamic shared memory: NaNs when the block starts. Fails for more than the launch asked for.
void* shared_memory(size_t bytes);

// Copies that a thread starts and waits for later: nothing arrives before.
void start_copy(void* to, const void* from, size_t bytes, size_t zeros);
void commit_copies();
void wait_for_copies(size_t groups_left);

// Runs `run(arguments)` once per thread. Throws CodedError ERR_KERNEL where the kernel breaks a rule.
void run_grid(dim3 blocks, dim3 threads, size_t shared_bytes, void (*run)(void*), void* arguments);

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 blocks, dim3 threads, size_t shared_bytes, Arguments... arguments) {
  struct Call {
    void (*kernel)(Parameters...);
    std::tuple<Parameters...> parameters;
  } call{kernel, {Parameters(arguments)...}};
  const auto run = [](void* pointer) {
    const Call& c = *static_cast<const Call*>(pointer);
    std::apply(c.kernel, c.parameters);
  };
  run_grid(blocks, threads, shared_bytes, run, &call);
}

template <class T>
struct Shuffle {
  T value;
  int source;  // lane
};

template <class T>
T shuffle(unsigned mask, T value, int source, std::source_location where) {
  Shuffle<T> mine{value, source};
  const auto operation = [](void* const operands[kLanes]) {
    T values[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) values[lane] = static_cast<Shuffle<T>*>(operands[lane])->value;
    for (int lane = 0; lane < kLanes; ++lane) {
      auto* s = static_cast<Shuffle<T>*>(operands[lane]);
      s->value = values[s->source & (kLanes - 1)];
    }
  };
  wait_for_warp(mask, operation, &mine, where);
  return mine.value;
}

inline int lane() {
  return int((here.thread.x + here.threads.x * (here.thread.y + here.threads.y * here.thread.z)) % kLanes);
}

}  // namespace tunesmith::cuda::host

// ---- CUDA's own names -----------------------------------------------------------------------------------------------
#define threadIdx tunesmith::cuda::host::here.thread
#define blockIdx tunesmith::cuda::host::here.block
#define blockDim tunesmith::cuda::host::here.threads
#define gridDim tunesmith::cuda::host::here.blocks
// Static shared memory would keep what the last block left: kernels take theirs from shared_storage() in launch.h.
#undef __shared__
#define __shared__ static_assert(false, "use shared_storage()");

#undef __launch_bounds__
#define __launch_bounds__(...)

inline void __syncthreads(std::source_location where = std::source_location::current()) {
  tunesmith::cuda::host::wait_for_block(where);
}
inline void __syncwarp(unsigned mask = ~0u, std::source_location where = std::source_location::current()) {
  tunesmith::cuda::host::wait_for_warp(
      mask, [](void* const*) {}, nullptr, where);
}
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int = 32,
              std::source_location where = std::source_location::current()) {
  return tunesmith::cuda::host::shuffle(mask, value, source, where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int = 32,
                  std::source_location where = std::source_location::current()) {
  return tunesmith::cuda::host::shuffle(mask, value, tunesmith::cuda::host::lane() ^ bits, where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance, int = 32,
                 std::source_location where = std::source_location::current()) {
  const int lane = tunesmith::cuda::host::lane(), source = lane - int(distance);
  return tunesmith::cuda::host::shuffle(mask, value, source < 0 ? lane : source, where);
}
inline unsigned __ballot_sync(unsigned mask, bool predicate,
                              std::source_location where = std::source_location::current()) {
  unsigned vote = predicate;
  const auto operation = [](void* const operands[tunesmith::cuda::host::kLanes]) {
    unsigned all = 0;
    for (int lane = 0; lane < tunesmith::cuda::host::kLanes; ++lane)
      all |= *static_cast<unsigned*>(operands[lane]) << lane;
    for (int lane = 0; lane < tunesmith::cuda::host::kLanes; ++lane) *static_cast<unsigned*>(operands[lane]) = all;
  };
  tunesmith::cuda::host::wait_for_warp(mask, operation, &vote, where);
  return vote;
}
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
