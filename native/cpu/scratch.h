// Working memory of the ops: the block that the model planned and handed over, or, where an op needs more than was
// planned, a spare one that grows to what was asked for and stays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace tunesmith::cpu {

constexpr size_t kScratchAlignment = 64;

constexpr size_t round_to_scratch(size_t bytes) {
  return (bytes + kScratchAlignment - 1) / kScratchAlignment * kScratchAlignment;
}

class Scratch {
 public:
  void set(void* memory, size_t bytes) {
    planned_ = static_cast<char*>(memory);
    planned_size_ = bytes / kScratchAlignment * kScratchAlignment;
  }

  size_t planned() const { return planned_size_; }
  size_t spare() const { return spare_size_; }

  struct Block {
    char* data;
    size_t size;  // a multiple of kScratchAlignment
  };

  // Changes whenever what was written to a spare block is lost.
  uint64_t generation() const { return generation_; }

  // At least `bytes`, aligned. The same request gets the same block, with what was written there, while generation()
  // stays the same.
  Block reserve(size_t bytes) {
    if (bytes <= planned_size_) return {planned_, planned_size_};
    if (bytes > spare_size_) {
      spare_.reset();
      spare_size_ = 0;
      void* memory = std::aligned_alloc(kScratchAlignment, round_to_scratch(bytes));
      if (!memory) throw std::bad_alloc();
      spare_.reset(static_cast<char*>(memory));
      spare_size_ = round_to_scratch(bytes);
      ++generation_;
    }
    return {spare_.get(), spare_size_};
  }

 private:
  struct Free {
    void operator()(char* memory) const { std::free(memory); }
  };

  char* planned_ = nullptr;
  size_t planned_size_ = 0;
  std::unique_ptr<char, Free> spare_;
  size_t spare_size_ = 0;
  uint64_t generation_ = 0;
};

}  // namespace tunesmith::cpu
