// Working memory of the ops: the block that the model planned and handed over, or, where an op needs more than was
// planned, a spare one that grows to what was asked for and stays.
#pragma once

#include <cstddef>
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

  struct Block {
    char* data;
    size_t size;  // a multiple of kScratchAlignment
  };

  // At least `bytes`, aligned; valid until the next call asks for more. Its contents stay as long as its address does.
  Block reserve(size_t bytes) {
    if (bytes <= planned_size_) return {planned_, planned_size_};
    if (bytes > spare_size_) {
      spare_.reset();
      spare_size_ = 0;
      void* memory = std::aligned_alloc(kScratchAlignment, round_to_scratch(bytes));
      if (!memory) throw std::bad_alloc();
      spare_.reset(static_cast<char*>(memory));
      spare_size_ = round_to_scratch(bytes);
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
};

}  // namespace tunesmith::cpu
