// The ops of one training step of SmolLM2-135M (hidden 576, 30 layers, 9 query and 3 key heads of 64, MLP 1536,
// vocabulary 49,152, tied), each as something that can be run on any backend, checked and timed.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "backend/backend.h"

namespace tunesmith::bench {

// Device memory of one workload, filled from a seed: the same values on every backend, rounded to bfloat16 throughout,
// so that backends that compute in different types read the same numbers.
class Pool {
 public:
  Pool(Backend& backend, DType compute) : backend(backend), compute(compute) {}
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  ~Pool();

  Tensor values(DType type, int64_t rows, int64_t cols, double scale = 1);
  Tensor zeros(DType type, int64_t rows, int64_t cols);
  const int32_t* integers(const std::vector<int32_t>& values);
  void* bytes(size_t size);

  Backend& backend;
  const DType compute;

 private:
  std::vector<void*> memory_;
  uint64_t draw_ = 0;
};

struct Workload {
  std::function<void()> run;
  std::vector<Tensor> outputs;
  double flops = 0;  // 0: bounded by memory
  double bytes = 0;  // read and written at least
};

struct Op {
  std::string name;
  double per_step;       // runs of it in a step of 1,024 tokens
  double tolerance;      // of each output's relative error in bfloat16; float32 gets 1e-5 (sums: 1e-4)
  int64_t check_tokens;  // rows small enough for the reference
  std::function<Workload(Pool& pool, int64_t tokens)> make;
};

std::vector<Op> step_ops();

}  // namespace tunesmith::bench
