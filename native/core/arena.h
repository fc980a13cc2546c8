// One allocation per engine, planned before anything runs: views are reserved first, then bound to memory all at once.
// Planning alone allocates nothing, which is how `plan` knows what training will take.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/tensor.h"

namespace tunesmith {

enum class MemoryKind : uint8_t {
  kParameters,
  kQuantized,
  kPrepared,
  kGradients,
  kOptimizer,
  kActivations,
  kLogits,
  kScratch,
  kCache,
  kCount
};

class Arena {
 public:
  static constexpr size_t kAlignment = 256;

  // `view` is shaped now and gets its data pointer in bind(); it must stay where it is until then.
  void reserve(MemoryKind kind, Tensor& view, DType dtype, int64_t rows, int64_t cols) {
    view = matrix(nullptr, dtype, rows, cols);
    views_.push_back({&view.data, take(kind, size_t(rows) * size_t(cols) * size_of(dtype))});
  }
  void reserve(MemoryKind kind, void*& pointer, size_t bytes) { views_.push_back({&pointer, take(kind, bytes)}); }
  template <class T>
  void reserve_array(MemoryKind kind, T*& pointer, int64_t count) {
    views_.push_back({reinterpret_cast<void**>(&pointer), take(kind, size_t(count) * sizeof(T))});
  }
  void reserve_ints(MemoryKind kind, int32_t*& pointer, int64_t count) { reserve_array(kind, pointer, count); }

  void bind(void* base) {
    for (const View& view : views_) *view.pointer = static_cast<char*>(base) + view.offset;
    views_.clear();
  }

  size_t bytes(MemoryKind kind) const { return bytes_[size_t(kind)]; }
  size_t total() const { return total_; }

 private:
  struct View {
    void** pointer;
    size_t offset;
  };

  size_t take(MemoryKind kind, size_t bytes) {
    const size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    const size_t offset = total_;
    bytes_[size_t(kind)] += rounded;
    total_ += rounded;
    return offset;
  }

  std::vector<View> views_;
  std::array<size_t, size_t(MemoryKind::kCount)> bytes_{};
  size_t total_ = 0;
};

}  // namespace tunesmith
