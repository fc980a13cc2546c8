// OpenMP work splitting. Regions always ask for the backend's full thread count: libgomp lets the surplus threads of a
// smaller team exit, and creating them again costs more than most ops.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>

namespace tunesmith::cpu {

// Elements of streaming work below which a second thread costs more than it brings.
constexpr int64_t kSerialElements = 1 << 14;

// Calls body(part, first, last) for `threads` contiguous ranges that cover [0, n). The split depends on n and `threads`
// alone, whatever team the runtime grants, so partial results per part have a fixed meaning.
template <class Body>
void parallel_parts(int threads, int64_t n, const Body& body) {
  const auto run = [&](int part) {
    const int64_t first = n * part / threads, last = n * (part + 1) / threads;
    if (first < last) body(part, first, last);
  };
  if (threads == 1) return run(0);
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int part = 0; part < threads; ++part) run(part);
}

// Calls body(first, last) over [0, n), each index costing about `cost` elements of streaming work.
template <class Body>
void parallel_ranges(int threads, int64_t n, int64_t cost, const Body& body) {
  if (n * cost < kSerialElements) threads = 1;
  parallel_parts(threads, n, [&](int, int64_t first, int64_t last) { body(first, last); });
}

// Calls body(thread, item) for every item of [0, n), handed out in order to whichever thread is free: for items of
// uneven cost whose results do not depend on each other.
template <class Body>
void parallel_items(int threads, int64_t n, const Body& body) {
  if (threads == 1 || n == 1) {
    for (int64_t item = 0; item < n; ++item) body(0, item);
    return;
  }
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
  for (int64_t item = 0; item < n; ++item) body(omp_get_thread_num(), item);
}

}  // namespace tunesmith::cpu
