// Filling and reading NF4 matrices on a device, with values that come and go as floats.
#pragma once

#include <array>
#include <map>
#include <vector>

#include "backend/backend.h"
#include "core/arena.h"
#include "core/nf4.h"

namespace tunesmith {

// Reserves the arrays of a matrix whose shape is set.
void reserve_nf4(Arena& arena, Nf4Matrix& matrix, bool doubled);

// One matrix as its values arrive, in pieces of any size and order: a block is quantised once it is complete, and the
// scales, which are quantised together, once all blocks are. Holds the absmax of every block until then, one float for
// 64 values, and the values of blocks that are not complete.
class Nf4Filling {
 public:
  explicit Nf4Filling(const Nf4Matrix& matrix);

  // values[count] from element `offset` on. True once the whole matrix is written; then this object is done.
  bool write(Backend& backend, int64_t offset, const float* values, int64_t count);

 private:
  struct Partial {
    std::array<float, kNf4Block> values;
    uint64_t filled = 0;  // a bit per value
  };

  int64_t block_size(int64_t block) const { return std::min(kNf4Block, matrix_.size() - block * kNf4Block); }
  void write_partial(Backend& backend, int64_t offset, const float* values, int64_t count);
  void write_blocks(Backend& backend, int64_t first, const float* values, int64_t count);
  void write_scales(Backend& backend);

  Nf4Matrix matrix_;
  std::vector<float> absmax_;
  std::vector<bool> written_;
  int64_t missing_;  // blocks
  std::map<int64_t, Partial> partial_;
};

// Memory of one matrix outside the arena: to quantise weights that are kept as floats.
class Nf4Memory {
 public:
  Nf4Memory(Backend& backend, int64_t rows, int64_t cols, bool doubled);
  Nf4Memory(const Nf4Memory&) = delete;
  ~Nf4Memory() { backend_.release(memory_); }
  const Nf4Matrix& matrix() const { return matrix_; }

 private:
  Backend& backend_;
  Nf4Matrix matrix_;
  void* memory_ = nullptr;
};

// values[count] from element `offset` on, as matmuls read them.
void read_nf4(Backend& backend, const Nf4Matrix& matrix, int64_t offset, float* values, int64_t count);

}  // namespace tunesmith
