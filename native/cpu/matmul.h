// oneDNN matmuls behind one description. Creating a primitive costs far more than running a small one, so primitives
// are kept, at most kMaxPrimitives of them, and the least recently used one goes first.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <list>
#include <map>

#include "core/tensor.h"
#include "cpu/scratch.h"
#include "dnnl.hpp"

namespace tunesmith::cpu {

// dst[m, n] (+)= src[m, k] · weights[k, n] + bias[n]. Strides are in elements. oneDNN 2.6 has fast bfloat16 kernels for
// dense matrices only (and multiplies others by packed weights a thousand times slower); run() copies the others.
struct MatmulProblem {
  int64_t m, n, k;
  DType operands;          // src and weights: float32 or bfloat16
  int64_t src_strides[2];  // one of the two is 1
  bool packed_weights;     // bfloat16 in the layout of Matmuls::packed_weights, else plain with strides
  int64_t weights_strides[2];
  DType dst;
  int64_t dst_stride;
  bool accumulate;
  bool bias;  // float32
};

// The layout oneDNN prefers for bfloat16 weights[k, n], the same for every m.
struct PackedWeights {
  dnnl::memory::desc desc;
  size_t bytes;
  // Whether it is [n / n_block][k / (2 k_block)][k_block][n_block][2], rounded up and zero-filled at the edges, which
  // pack.h packs. Where a machine or version of oneDNN prefers another layout, its own reorder does the packing.
  bool known;
  int64_t n_block, k_block;
};

class Matmuls {
 public:
  Matmuls(int threads, Scratch& scratch);

  // Whether oneDNN multiplies bfloat16 matrices here at all (it needs AVX-512).
  bool supports_bfloat16() const { return supports_bfloat16_; }

  const PackedWeights& packed_weights(int64_t k, int64_t n);
  // Packs master[k, n] (float32, one of the strides 1) into `to`, packed_weights(k, n).bytes long.
  void pack(void* to, const float* master, int64_t k, int64_t n, int64_t k_stride, int64_t n_stride);

  // What run() needs of scratch beside the operands.
  size_t scratch_bytes(const MatmulProblem& problem);
  // bfloat16 weights[k, n] of `problem`, packed into scratch by `pack`, which makes them from what `source` points to.
  // They stay there while nothing else needs the room, so that the chunks of one large layer share one packing. Whoever
  // changes the source calls forget_held_weights().
  const void* hold_weights(const MatmulProblem& problem, const void* source, const std::function<void(void*)>& pack);
  void forget_held_weights() { held_.source = nullptr; }
  // So many bytes of scratch beside what run(problem) needs, for operands made by the caller.
  char* room(const MatmulProblem& problem, size_t bytes);

  // Operands may lie in scratch: what hold_weights(problem, ...) or room(problem, ...) has just returned.
  void run(const MatmulProblem& problem, void* dst, const void* src, const void* weights, const float* bias);

 private:
  static constexpr size_t kMaxPrimitives = 256;

  using Key = std::array<int64_t, 13>;
  struct Entry {
    Key key;
    dnnl::matmul primitive;
    size_t scratch_bytes;
    dnnl::memory src, weights, dst, bias, scratch;
  };

  // A problem with dense matrices, and what it takes to copy those that are not.
  struct Dense {
    MatmulProblem problem;
    size_t src_bytes, dst_bytes;  // of copies; 0: none
  };

  static Dense densify(const MatmulProblem& problem);
  dnnl::matmul::primitive_desc describe(const MatmulProblem& problem);
  Entry& entry(const MatmulProblem& problem);
  size_t held_bytes() const;
  Scratch::Block reserve(size_t bytes);

  int threads_;
  Scratch& scratch_;
  bool supports_bfloat16_;
  dnnl::engine engine_;
  dnnl::stream stream_;
  std::list<Entry> entries_;  // most recently used first
  std::map<Key, std::list<Entry>::iterator> index_;
  std::map<std::array<int64_t, 2>, PackedWeights> layouts_;

  // The packed weights at the front of scratch; none where source is null.
  struct Held {
    const void* source = nullptr;
    int64_t k = 0, n = 0, k_stride = 0;  // k_stride tells W[n, k] from its transpose where k = n
    char* at = nullptr;
    uint64_t generation = 0;
  } held_;
};

}  // namespace tunesmith::cpu
