// The scheduler of cuda/host/fibers.h.
#include "cuda/host/fibers.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <string>
#include <vector>

#include "core/error.h"
#include "cuda/host/switch.h"

namespace tunesmith::cuda::host {

thread_local Place here;

namespace {

constexpr size_t kStack = 64 * 1024;
constexpr size_t kGuard = 256;           // bytes on each side of shared memory
constexpr uint8_t kNan = 0xff;           // every byte of fresh memory
constexpr uint16_t kGuardWord = 0xfff7;  // NaN in bfloat16 and float32, and not what fresh memory holds
constexpr uint64_t kStackEnd = 0x5afe57acc0de57ac;

enum class State : uint8_t { kReady, kWarp, kBlock, kEnded };

struct Copy {
  void* to;
  const void* from;
  size_t bytes, zeros;
};

struct Fiber {
  void* stack_pointer;
  uint3 index;
  State state;
  std::source_location where;
  WarpOperation operation;
  void* operand;
  std::vector<Copy> copies;    // in the order they were started
  std::vector<size_t> groups;  // copies of each group that is closed and not waited for yet
};

// splitmix64
uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
  x = (x ^ x >> 27) * 0x94d049bb133111eb;
  return x ^ x >> 31;
}

struct Order {
  enum { kForward, kReverse, kRandom } kind = kForward;
  uint64_t state = 0;

  Order() {
    const char* text = std::getenv("TUNESMITH_FIBER_ORDER");
    const std::string name = text ? text : "forward";
    if (name == "reverse") {
      kind = kReverse;
    } else if (name.rfind("random:", 0) == 0 && name.size() > 7 &&
               name.find_first_not_of("0123456789", 7) == std::string::npos) {
      kind = kRandom, state = mix(std::strtoull(name.c_str() + 7, nullptr, 10));
    } else if (name != "forward") {
      throw CodedError("ERR_INVALID_OPTION",
                       "TUNESMITH_FIBER_ORDER is " + name + ": use forward, reverse or random:SEED");
    }
  }
  uint32_t below(uint32_t n) { return uint32_t((mix(state++) >> 32) * n >> 32); }
  // The i-th of n things.
  template <class T>
  void arrange(std::vector<T>& things) {
    if (kind == kReverse) std::reverse(things.begin(), things.end());
    if (kind == kRandom)
      for (size_t i = things.size(); i > 1; --i) std::swap(things[i - 1], things[below(uint32_t(i))]);
  }
};

struct Failure {
  std::string text;
};

class Grid;
thread_local Grid* running = nullptr;

std::string text_of(std::source_location where) {
  const std::string file = where.file_name();
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(where.line());
}

bool same(const std::source_location& a, const std::source_location& b) {
  return a.line() == b.line() && a.column() == b.column() && std::strcmp(a.file_name(), b.file_name()) == 0;
}

class Grid {
 public:
  Grid(dim3 blocks, dim3 threads, size_t shared_bytes, void (*run)(void*), void* arguments)
      : blocks_(blocks), threads_(threads), shared_bytes_(shared_bytes), run_(run), arguments_(arguments) {
    const size_t count = size_t(threads.x) * threads.y * threads.z;
    const auto refuse = [](const std::string& text) { throw CodedError("ERR_KERNEL", "a launch asks for " + text); };
    if (count == 0 || count > 1024 || count % kLanes)
      refuse(std::to_string(count) + " threads: whole warps, 1024 threads at most");
    if (blocks.y > 65535 || blocks.z > 65535 || blocks.x > 0x7fffffff) refuse("more blocks than a grid has");
    if (shared_bytes > 227 * 1024) refuse(std::to_string(shared_bytes) + " bytes of shared memory");
    fibers_.resize(count);
    shared_.resize(shared_bytes + 2 * kGuard);
    if (stacks().size() < count) throw CodedError("ERR_KERNEL", "too few stacks");
  }

  void run() {
    std::vector<uint64_t> order(size_t(blocks_.x) * blocks_.y * blocks_.z);
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    order_.arrange(order);
    Grid* const outer = running;
    running = this;
    here.threads = threads_, here.blocks = blocks_;
    try {
      for (const uint64_t block : order) run_block(block);
    } catch (const Failure& failure) {
      running = outer;
      const std::string at = "block " + std::to_string(here.block.x) + "," + std::to_string(here.block.y) + "," +
                             std::to_string(here.block.z);
      throw CodedError("ERR_KERNEL", at + ": " + failure.text);
    }
    running = outer;
  }

  void wait(State state, std::source_location where) {
    Fiber& me = fibers_[current_];
    me.state = state, me.where = where;
    switch_fiber(&me.stack_pointer, scheduler_);
  }
  void wait_for_warp(WarpOperation operation, void* operand, std::source_location where) {
    fibers_[current_].operation = operation, fibers_[current_].operand = operand;
    wait(State::kWarp, where);
  }
  Fiber& current() { return fibers_[current_]; }
  [[noreturn]] void fail_in_fiber(const std::string& text) {
    failure_ = text;
    wait(State::kEnded, {});
    std::abort();  // never resumed
  }
  void* shared(size_t bytes) {
    if (bytes > shared_bytes_)
      fail_in_fiber("a kernel uses " + std::to_string(bytes) + " bytes of shared memory and was launched with " +
                    std::to_string(shared_bytes_));
    return shared_.data() + kGuard;
  }

 private:
  static std::vector<char*>& stacks() {
    struct Memory {
      // Aligned to a stack, and one more below them, which the lowest may overflow into before that is noticed.
      Memory() {
        constexpr size_t kBytes = 1026 * kStack;
        base = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (base == MAP_FAILED) throw CodedError("ERR_OUT_OF_MEMORY", "no memory for the stacks of 1024 fibers");
        const uintptr_t first = (reinterpret_cast<uintptr_t>(base) / kStack + 2) * kStack;
        for (size_t i = 0; i < 1024; ++i) stacks.push_back(reinterpret_cast<char*>(first + i * kStack));
      }
      ~Memory() { munmap(base, 1026 * kStack); }
      void* base;
      std::vector<char*> stacks;
    };
    thread_local Memory memory;
    return memory.stacks;
  }

  static void fiber_main() {
    running->run_(running->arguments_);
    running->wait(State::kEnded, {});
  }

  void run_block(uint64_t block) {
    here.block = {unsigned(block % blocks_.x), unsigned(block / blocks_.x % blocks_.y),
                  unsigned(block / blocks_.x / blocks_.y)};
    std::fill_n(shared_.begin() + kGuard, shared_bytes_, kNan);
    for (size_t i = 0; i < kGuard; i += 2) {
      std::memcpy(&shared_[i], &kGuardWord, 2);
      std::memcpy(&shared_[kGuard + shared_bytes_ + i], &kGuardWord, 2);
    }
    for (size_t i = 0; i < fibers_.size(); ++i) {
      Fiber& f = fibers_[i];
      f.index = {unsigned(i % threads_.x), unsigned(i / threads_.x % threads_.y),
                 unsigned(i / (threads_.x * threads_.y))};
      f.state = State::kReady;
      f.copies.clear(), f.groups.clear();
      std::memcpy(stacks()[i], &kStackEnd, sizeof kStackEnd);
      f.stack_pointer = new_fiber(stacks()[i], kStack, fiber_main);
    }
    while (step()) {
    }
    check_block();
  }

  // Runs one warp as far as it goes without the others. False when the block has ended.
  bool step() {
    const size_t warps = fibers_.size() / kLanes;
    std::vector<size_t>& able = able_;
    able.clear();
    for (size_t w = 0; w < warps; ++w)
      if (std::any_of(lanes(w), lanes(w) + kLanes, [](const Fiber& f) { return f.state == State::kReady; }))
        able.push_back(w);
    if (able.empty()) return release_block();
    const size_t warp = order_.kind == Order::kForward   ? able.front()
                        : order_.kind == Order::kReverse ? able.back()
                                                         : able[order_.below(uint32_t(able.size()))];
    lane_order_.resize(kLanes);
    for (int lane = 0; lane < kLanes; ++lane) lane_order_[size_t(lane)] = size_t(lane);
    order_.arrange(lane_order_);
    for (const size_t lane : lane_order_) {
      Fiber& f = lanes(warp)[lane];
      if (f.state != State::kReady) continue;
      current_ = warp * kLanes + lane;
      here.thread = f.index;
      switch_fiber(&scheduler_, f.stack_pointer);
      if (!failure_.empty()) throw Failure{failure_};
    }
    exchange(warp);
    return true;
  }

  void exchange(size_t warp) {
    Fiber* const first = lanes(warp);
    const auto waits = [](const Fiber& f) { return f.state == State::kWarp; };
    Fiber* const one = std::find_if(first, first + kLanes, waits);
    if (one == first + kLanes) return;
    void* operands[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) {
      Fiber& f = first[lane];
      if (!waits(f))
        throw Failure{"lane " + std::to_string(one - first) + " of warp " + std::to_string(warp) + " waits at " +
                      text_of(one->where) + " for its warp, but lane " + std::to_string(lane) +
                      (f.state == State::kEnded ? " has ended" : " waits at the barrier of " + text_of(f.where))};
      if (f.operation != one->operation || !same(f.where, one->where))
        throw Failure{"lanes of one warp wait for each other at " + text_of(one->where) + " and at " +
                      text_of(f.where)};
      operands[lane] = f.operand;
    }
    one->operation(operands);
    for (int lane = 0; lane < kLanes; ++lane) first[lane].state = State::kReady;
  }

  // All wait at one barrier, or all have ended.
  bool release_block() {
    const Fiber& first = fibers_.front();
    for (const Fiber& f : fibers_) {
      if (f.state == first.state && (f.state == State::kEnded || same(f.where, first.where))) continue;
      const auto words = [&](const Fiber& fiber) {
        const std::string name = "thread " + std::to_string(&fiber - &fibers_.front());
        return name + (fiber.state == State::kEnded ? " has ended" : " waits at " + text_of(fiber.where));
      };
      throw Failure{"threads of one block at different barriers: " + words(first) + ", " + words(f)};
    }
    if (first.state == State::kEnded) return false;
    for (Fiber& f : fibers_) f.state = State::kReady;
    return true;
  }

  void check_block() {
    for (size_t i = 0; i < kGuard; i += 2)
      for (const size_t at : {i, kGuard + shared_bytes_ + i})
        if (std::memcmp(&shared_[at], &kGuardWord, 2) != 0)
          throw Failure{"a kernel wrote " + std::string(at < kGuard ? "before" : "after") + " its shared memory"};
    for (size_t i = 0; i < fibers_.size(); ++i) {
      if (std::memcmp(stacks()[i], &kStackEnd, sizeof kStackEnd) != 0)
        throw Failure{"a thread used more than " + std::to_string(kStack) + " bytes of stack"};
      if (!fibers_[i].copies.empty()) throw Failure{"a thread ended without waiting for its copies"};
    }
  }

  Fiber* lanes(size_t warp) { return &fibers_[warp * kLanes]; }

  dim3 blocks_, threads_;
  size_t shared_bytes_;
  void (*run_)(void*);
  void* arguments_;
  Order order_;
  std::vector<Fiber> fibers_;
  std::vector<uint8_t> shared_;
  std::vector<size_t> able_, lane_order_;
  void* scheduler_ = nullptr;
  size_t current_ = 0;
  std::string failure_;
};

}  // namespace

void run_grid(dim3 blocks, dim3 threads, size_t shared_bytes, void (*run)(void*), void* arguments) {
  Grid(blocks, threads, shared_bytes, run, arguments).run();
}

void wait_for_block(std::source_location where) { running->wait(State::kBlock, where); }

void wait_for_warp(unsigned mask, WarpOperation operation, void* operand, std::source_location where) {
  if (mask != ~0u) running->fail_in_fiber("the mask at " + text_of(where) + " leaves lanes out");
  running->wait_for_warp(operation, operand, where);
}

void* shared_memory(size_t bytes) { return running->shared(bytes); }

void start_copy(void* to, const void* from, size_t bytes, size_t zeros) {
  const size_t whole = bytes + zeros;
  if (reinterpret_cast<uintptr_t>(to) % whole || (bytes && reinterpret_cast<uintptr_t>(from) % whole))
    running->fail_in_fiber("a copy of " + std::to_string(whole) + " bytes is not aligned to that");
  running->current().copies.push_back({to, from, bytes, zeros});
}

void commit_copies() {
  Fiber& me = running->current();
  me.groups.push_back(me.copies.size() - std::accumulate(me.groups.begin(), me.groups.end(), size_t(0)));
}

void wait_for_copies(size_t groups_left) {
  Fiber& me = running->current();
  size_t arrived = 0;
  while (me.groups.size() > groups_left) {
    for (size_t i = 0; i < me.groups.front(); ++i, ++arrived) {
      const Copy& copy = me.copies[arrived];
      if (copy.bytes) std::memcpy(copy.to, copy.from, copy.bytes);
      std::memset(static_cast<char*>(copy.to) + copy.bytes, 0, copy.zeros);
    }
    me.groups.erase(me.groups.begin());
  }
  me.copies.erase(me.copies.begin(), me.copies.begin() + ptrdiff_t(arrived));
}

}  // namespace tunesmith::cuda::host
