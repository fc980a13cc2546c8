// Switching of stacks. ucontext does it everywhere, at two system calls each; on x86-64 a dozen instructions do.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tunesmith::cuda::host {

// A stack pointer for switch_fiber() that starts `run` on this stack; run never returns.
void* new_fiber(char* stack, size_t bytes, void (*run)());
// Leaves the running fiber, whose stack pointer goes to *from, and goes on with another.
extern "C" void tunesmith_switch_fiber(void** from, void* to);
inline void switch_fiber(void** from, void* to) { tunesmith_switch_fiber(from, to); }

}  // namespace tunesmith::cuda::host
