// Low-rank adapters of the projections (LoRA, arXiv 2106.09685): beside a frozen W lie A[r, K] and B[N, r], and
//
//   y = W x + b + s · B (A drop(x)),   s = alpha / r, or alpha / √r (rsLoRA, arXiv 2312.03732)
//
// DoRA (arXiv 2402.09353) adds a magnitude m[N] per module: with u = W x + s · B A x and g = m / ‖W + s · B A‖ by rows,
// y = g ⊙ u + b. The norm is a constant for the gradient (section 4.3). With dropout, as PEFT has it, u is made of
// drop(x) and y = W x + b - W drop(x) + g ⊙ u.
//
// A module is one projection of the checkpoint's own code and has one A and one B, also where several of them are one
// matmul here ([q; k; v]): the A's of one input lie together and are one matmul. Merged weights are never made, but
// for merge().
#pragma once

#include <string>
#include <vector>

#include "backend/backend.h"

namespace tunesmith {

// Whether a parameter of this name belongs to an adapter.
bool is_adapter(const std::string& name);

struct AdapterModule {
  std::string name;                // its parameters are NAME.lora_a, .lora_b and, with DoRA, .lora_magnitude
  std::vector<std::string> parts;  // the native projections it covers, in their order: "layers.0.attention.q", ...
  int64_t rank;
  double scale;  // s
};

struct AdapterOptions {
  std::vector<AdapterModule> modules;
  bool dora = false;
  double dropout = 0;  // of the input of A while training
};

// Neighbouring rows of a joined matrix (elements of a joined bias) that train.
struct TrainedRows {
  int64_t first, count;
  Tensor grad;  // [count, K], of a bias [count]
};

// What one module adds to one matmul: to `count` columns of y from `first` on.
struct AdapterSlice {
  int64_t first, count;
  int64_t rank_first;  // its columns of h = x · Aᵀ
  double scale;
  Tensor a;        // [r, K] wide
  LinearWeight b;  // [count, r]
  Tensor b_grad;
  Tensor magnitude, magnitude_grad;  // [count], with DoRA
  void* prepared = nullptr;
};

// The adapters of one matmul.
struct LinearAdapter {
  LinearWeight a;  // [R, K]: the A's of all slices, one below the other
  std::vector<TrainedRows> trained_a;
  std::vector<AdapterSlice> slices;
  bool supervised = false;  // x has the rows that carry loss, else all tokens
  uint64_t input = 0;       // names x among the activations that are dropped
  Tensor norm, gain;        // [N] wide, with DoRA; the gain of columns without a module is 1
  void* prepared = nullptr;
};

}  // namespace tunesmith
