// The runner of kernels on the CPU, by kernels that are right and kernels with the faults it is there to find.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <cmath>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "core/error.h"
#include "cuda/kernel.h"
#include "cuda/mma.h"
#include "doctest/doctest.h"

namespace tunesmith::cuda {

// Of backend.cu, which is not part of this program.
void check(cudaError_t status, std::source_location) { REQUIRE(status == cudaSuccess); }

namespace {

const std::vector<std::string> kOrders = {"forward", "reverse", "random:1", "random:2", "random:3"};

// What `run` makes under each order.
template <class Run>
auto under_orders(const Run& run) {
  std::vector<decltype(run())> results;
  for (const std::string& order : kOrders) {
    setenv("TUNESMITH_FIBER_ORDER", order.c_str(), 1);
    results.push_back(run());
  }
  unsetenv("TUNESMITH_FIBER_ORDER");
  return results;
}

template <class T>
bool all_same(const std::vector<T>& results) {
  for (const T& result : results)
    if (result != results.front()) return false;
  return true;
}

// The message that the launch fails with under every order, or "" where it does not.
std::string failure(const std::function<void()>& run) {
  std::string text;
  for (const std::string& one : under_orders([&]() -> std::string {
         try {
           run();
         } catch (const CodedError& error) {
           CHECK(error.code() == "ERR_KERNEL");
           return error.what();
         }
         return "";
       })) {
    if (text.empty()) text = one;
    CHECK(one.empty() == text.empty());
  }
  return text;
}

// out[i] = the sum of what all threads put into shared memory, for every thread; `guarded`: with its barrier.
__global__ void sum_all(int* out, bool guarded) {
  int* const values = shared_storage<int>(64);
  values[threadIdx.x] = int(threadIdx.x) + 1;
  if (guarded) __syncthreads();
  int sum = 0;
  for (int i = 0; i < 64; ++i) sum += values[i];
  out[threadIdx.x] = sum;
}

// Rounds that reuse the same shared memory: the barrier after reading is what a fast warp must wait at.
__global__ void rounds(int* out, bool guarded) {
  int* const value = shared_storage<int>();
  int sum = 0;
  for (int round = 0; round < 4; ++round) {
    if (threadIdx.x == 0) *value = round;
    __syncthreads();
    sum += *value << round * 4;
    // Shuffles give the other warps no chance to catch up.
    sum = __shfl_sync(kAllLanes, sum, 0);
    if (guarded) __syncthreads();
  }
  out[threadIdx.x] = sum;
}

std::vector<int> run_into(void (*kernel)(int*, bool), bool guarded) {
  std::vector<int> out(64, -1);
  launch(kernel, {dim3(1), 64, nullptr, 64 * sizeof(int)}, out.data(), guarded);
  return out;
}

}  // namespace

TEST_CASE("barriers: with them all orders agree, without them they do not") {
  for (const auto kernel : {sum_all, rounds}) {
    CHECK(all_same(under_orders([&] { return run_into(kernel, true); })));
    CHECK(!all_same(under_orders([&] { return run_into(kernel, false); })));
  }
  CHECK(run_into(sum_all, true) == std::vector<int>(64, 64 * 65 / 2));
}

namespace {

__global__ void race_of_blocks(int* out) {
  if (threadIdx.x == 0) *out = int(blockIdx.x);
}

__global__ void divergent_barriers(int) {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
}
__global__ void early_end(int) {
  if (threadIdx.x == 40) return;
  __syncthreads();
}
__global__ void shuffle_against_barrier(int) {
  if (threadIdx.x % 32 < 16)
    __shfl_xor_sync(kAllLanes, 1, 1);
  else
    __syncthreads();
}
__global__ void two_shuffles(int) {
  if (threadIdx.x % 2)
    __shfl_xor_sync(kAllLanes, 1, 1);
  else
    __shfl_xor_sync(kAllLanes, 1, 1);
}
__global__ void half_mask(int) {
  if (threadIdx.x % 32 < 16) __shfl_xor_sync(0xffffu, 1, 1);
}
__global__ void lane_missing(int) {
  if (threadIdx.x != 7) warp_sum(1.0f);
}
__global__ void too_much_shared(int) { shared_storage<char>(1000)[0] = 0; }
__global__ void past_shared(int) { shared_storage<char>(100)[100] = 0; }
__global__ void copies_left(const int* from) {
  copy_async(shared_storage<char>(1024) + 16 * threadIdx.x, from, true);
  commit_copies();
}
__global__ void unaligned_copy(const int* from) {
  copy_async(shared_storage<char>(1024) + 16 * threadIdx.x, from + 1, true);
}
// Writes where a stack ends: stacks are 64 KiB, aligned to that.
__global__ void deep_stack(int) {
  char local = 0;
  *reinterpret_cast<volatile uint64_t*>(reinterpret_cast<uintptr_t>(&local) / 65536 * 65536) = 0;
}

template <class... Parameters>
std::string failure_of(void (*kernel)(Parameters...), std::type_identity_t<Parameters>... arguments) {
  return failure([&] { launch(kernel, {dim3(2), 64, nullptr, 100}, arguments...); });
}

}  // namespace

TEST_CASE("faults are found in every order") {
  const auto says = [](const std::string& text, const char* words) {
    INFO(text);
    CHECK(text.find(words) != std::string::npos);
  };
  says(failure_of(divergent_barriers, 0), "different barriers");
  says(failure_of(early_end, 0), "has ended");
  says(failure_of(shuffle_against_barrier, 0), "waits at the barrier");
  says(failure_of(two_shuffles, 0), "lanes of one warp");
  says(failure_of(half_mask, 0), "leaves lanes out");
  says(failure_of(lane_missing, 0), "has ended");
  says(failure_of(too_much_shared, 0), "1000 bytes of shared memory");
  says(failure_of(past_shared, 0), "after its shared memory");
  alignas(16) const int zeros[8] = {};
  says(failure([&] { launch(copies_left, {dim3(1), 64, nullptr, 1024}, zeros); }), "without waiting for its copies");
  says(failure([&] { launch(unaligned_copy, {dim3(1), 64, nullptr, 1024}, zeros); }), "not aligned");
  says(failure_of(deep_stack, 0), "of stack");
  says(failure([&] { launch(early_end, {dim3(1), 48, nullptr}, 0); }), "whole warps");
  says(failure([&] { launch(early_end, {dim3(1, 70000), 64, nullptr}, 0); }), "more blocks");
  CHECK(!all_same(under_orders([] {
    int last = -1;
    launch(race_of_blocks, {dim3(8), 32, nullptr}, &last);
    return last;
  })));
  setenv("TUNESMITH_FIBER_ORDER", "backwards", 1);
  CHECK_THROWS_AS(launch(race_of_blocks, {dim3(1), 32, nullptr}, nullptr), CodedError);
  unsetenv("TUNESMITH_FIBER_ORDER");
}

namespace {

__global__ void shared_starts_as_nan(int* nans) {
  const float* const values = shared_storage<float>(16);
  if (threadIdx.x == 0)
    for (int i = 0; i < 16; ++i) nans[blockIdx.x] += std::isnan(values[i]);
  __syncthreads();
  shared_storage<float>(16)[threadIdx.x % 16] = 1;
}

__global__ void late_copies(int* out, const int* from) {
  int* const room = shared_storage<int>(4 * 32);
  int* const mine = room + 4 * threadIdx.x;
  mine[0] = mine[3] = 5;
  copy_async(mine, from, true);
  commit_copies();
  wait_for_copies<1>();
  const int before = mine[3];
  copy_async(mine, from, false);
  commit_copies();
  wait_for_copies<1>();
  const int between = mine[3];
  wait_for_copies<0>();
  if (threadIdx.x == 0) out[0] = before, out[1] = between, out[2] = mine[3];
}

__global__ void votes(unsigned* out) {
  const unsigned odd = __ballot_sync(kAllLanes, threadIdx.x % 2);
  const int left = __shfl_up_sync(kAllLanes, int(threadIdx.x), 3u);
  const int sum = warp_sum(int(threadIdx.x));
  if (threadIdx.x == 9) out[0] = odd, out[1] = unsigned(left), out[2] = unsigned(sum);
}

}  // namespace

TEST_CASE("shared memory, copies and votes") {
  int nans[3] = {};
  launch(shared_starts_as_nan, {dim3(3), 32, nullptr, 64}, nans);
  CHECK((nans[0] == 16 && nans[1] == 16 && nans[2] == 16));
  alignas(16) const int from[4] = {1, 2, 3, 4};
  int seen[3] = {};
  launch(late_copies, {dim3(1), 32, nullptr, 512}, seen, from);
  CHECK((seen[0] == 5 && seen[1] == 4 && seen[2] == 0));
  unsigned voted[3] = {};
  launch(votes, {dim3(1), 32, nullptr}, voted);
  CHECK((voted[0] == 0xaaaaaaaa && voted[1] == 6 && voted[2] == 31 * 32 / 2));
}

namespace {

// d[16, 8] = a[16, 16] · b[16, 8] from row-major shared memory, by the fragments of mma.h's comments: once loaded
// element by element, once by load_matrices().
__global__ void product(float* d, const __nv_bfloat16* a, const __nv_bfloat16* b, bool by_matrices) {
  __nv_bfloat16* const a_shared = shared_storage<__nv_bfloat16>(16 * 24 * 2);
  __nv_bfloat16* const b_shared = a_shared + 16 * 24;
  for (int i = int(threadIdx.x); i < 256; i += kWarp) a_shared[i / 16 * 24 + i % 16] = a[i];
  for (int i = int(threadIdx.x); i < 256; i += kWarp)
    b_shared[i / 16 * 24 + i % 16] = i % 16 < 8 ? b[i / 16 * 8 + i % 16] : __float2bfloat16(99.0f);
  __syncthreads();
  const int lane = int(threadIdx.x), g = lane / 4, q = lane % 4, matrix = lane / 8;
  const auto pair = [](__nv_bfloat16 low, __nv_bfloat16 high) {
    uint16_t bits[2];
    std::memcpy(&bits[0], &low, 2), std::memcpy(&bits[1], &high, 2);
    return uint32_t(bits[1]) << 16 | bits[0];
  };
  const auto a_at = [&](int row, int column) { return a_shared[row * 24 + column]; };
  const auto b_at = [&](int row, int column) { return b_shared[row * 24 + column]; };
  uint32_t fa[4], fb[4];
  if (by_matrices) {
    load_matrices(fa, a_shared + (matrix % 2 * 8 + lane % 8) * 24 + matrix / 2 * 8);
    load_matrices_transposed(fb, b_shared + (matrix % 2 * 8 + lane % 8) * 24 + matrix / 2 * 8);
  } else {
    for (int i = 0; i < 4; ++i) {
      const int row = g + i % 2 * 8, column = 2 * q + i / 2 * 8;
      fa[i] = pair(a_at(row, column), a_at(row, column + 1));
    }
    for (int i = 0; i < 2; ++i) fb[i] = pair(b_at(2 * q + i * 8, g), b_at(2 * q + i * 8 + 1, g));
  }
  float sum[4] = {1, 1, 1, 1};
  mma_m16n8k16(sum, fa, fb[0], fb[1]);
  for (int i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + 2 * q + i % 2] = sum[i];
}

}  // namespace

TEST_CASE("mma_m16n8k16 and load_matrices against the product in double") {
  std::vector<__nv_bfloat16> a(256), b(128);
  for (size_t i = 0; i < a.size(); ++i) a[i] = __float2bfloat16(float(int(i * 37 % 101) - 50) / 16);
  for (size_t i = 0; i < b.size(); ++i) b[i] = __float2bfloat16(float(int(i * 53 % 89) - 44) / 16);
  for (const bool by_matrices : {false, true}) {
    const auto results = under_orders([&] {
      std::vector<float> d(128, NAN);
      launch(product, {dim3(1), 32, nullptr, 16 * 24 * 4}, d.data(), a.data(), b.data(), by_matrices);
      return d;
    });
    CHECK(all_same(results));
    for (size_t row = 0; row < 16; ++row)
      for (size_t column = 0; column < 8; ++column) {
        double sum = 1;
        for (size_t k = 0; k < 16; ++k)
          sum += double(__bfloat162float(a[row * 16 + k])) * double(__bfloat162float(b[k * 8 + column]));
        CHECK(results[0][row * 8 + column] == doctest::Approx(sum).epsilon(1e-6));
      }
  }
}

}  // namespace tunesmith::cuda
