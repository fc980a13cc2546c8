// Counter-based random numbers on the device.
#pragma once

#include "cuda/launch.h"

namespace tunesmith::cuda {

// philox() of core/rng.h.
__device__ inline uint4 philox(uint64_t key, uint4 counter) {
  uint32_t k0 = uint32_t(key), k1 = uint32_t(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t(0xD2511F53u) * counter.x, p1 = uint64_t(0xCD9E8D57u) * counter.z;
    counter = {uint32_t(p1 >> 32) ^ counter.y ^ k0, uint32_t(p1), uint32_t(p0 >> 32) ^ counter.w ^ k1, uint32_t(p0)};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return counter;
}

}  // namespace tunesmith::cuda
