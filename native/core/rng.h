// Counter-based random numbers: Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
// A value depends on its key and its index alone, never on who draws it or when.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <string_view>

namespace tunesmith {

inline std::array<uint32_t, 4> philox(uint64_t key, std::array<uint32_t, 4> counter) {
  uint32_t k0 = uint32_t(key), k1 = uint32_t(key >> 32);
  for (int round = 0; round < 10; round++) {
    const uint64_t p0 = uint64_t(0xD2511F53u) * counter[0], p1 = uint64_t(0xCD9E8D57u) * counter[2];
    counter = {uint32_t(p1 >> 32) ^ counter[1] ^ k0, uint32_t(p1), uint32_t(p0 >> 32) ^ counter[3] ^ k1, uint32_t(p0)};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return counter;
}

// The index-th standard normal value of the stream named by key and stream (Box–Muller, both halves used).
inline double philox_normal(uint64_t key, uint64_t stream, uint64_t index) {
  const uint64_t pair = index / 2;
  const auto word = philox(key, {uint32_t(pair), uint32_t(pair >> 32), uint32_t(stream), uint32_t(stream >> 32)});
  const double u1 = (double(uint64_t(word[0]) << 20 | word[1] >> 12) + 0.5) * 0x1p-52;  // (0, 1)
  const double u2 = double(uint64_t(word[2]) << 20 | word[3] >> 12) * 0x1p-52;
  const double radius = std::sqrt(-2 * std::log(u1)), angle = 2 * std::numbers::pi * u2;
  return radius * (index % 2 ? std::sin(angle) : std::cos(angle));
}

// The index-th uniform value of the stream, from 0 to below 1.
inline double philox_uniform(uint64_t key, uint64_t stream, uint64_t index) {
  const uint64_t pair = index / 2;
  const auto word = philox(key, {uint32_t(pair), uint32_t(pair >> 32), uint32_t(stream), uint32_t(stream >> 32)});
  const size_t half = index % 2 * 2;
  return double(uint64_t(word[half]) << 20 | word[half + 1] >> 12) * 0x1p-52;
}

// FNV-1a, to turn a name into a stream.
constexpr uint64_t hash_name(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : name) hash = (hash ^ uint8_t(c)) * 0x100000001b3u;
  return hash;
}

}  // namespace tunesmith
