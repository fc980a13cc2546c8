#include "cuda/host/switch.h"

#include <cstring>

#if defined(__x86_64__)

// The registers that a call preserves, and the stack; the return address is where the fiber goes on.
asm(R"(
.text
.hidden tunesmith_switch_fiber
.globl tunesmith_switch_fiber
.type tunesmith_switch_fiber, @function
tunesmith_switch_fiber:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size tunesmith_switch_fiber, . - tunesmith_switch_fiber
)");

namespace tunesmith::cuda::host {

void* new_fiber(char* stack, size_t bytes, void (*run)()) {
  // Six registers, the address of `run`, and a return address that is never used: a function starts with its stack 8
  // bytes off a multiple of 16.
  char* const top = stack + bytes - 64;
  std::memset(top, 0, 64);
  std::memcpy(top + 48, &run, sizeof run);
  return top;
}

}  // namespace tunesmith::cuda::host

#else

#include <ucontext.h>

namespace tunesmith::cuda::host {

void* new_fiber(char* stack, size_t bytes, void (*run)()) {
  // The context itself lies at the top of the stack.
  auto* const context = reinterpret_cast<ucontext_t*>(stack + (bytes - sizeof(ucontext_t)) / 64 * 64);
  getcontext(context);
  context->uc_stack.ss_sp = stack + 64;  // below lies the mark of the stack's end
  context->uc_stack.ss_size = size_t(reinterpret_cast<char*>(context) - stack) - 64;
  context->uc_link = nullptr;
  makecontext(context, run, 0);
  return context;
}

extern "C" void tunesmith_switch_fiber(void** from, void* to) {
  ucontext_t mine;
  *from = &mine;  // on the stack that is left
  swapcontext(&mine, static_cast<ucontext_t*>(to));
}

}  // namespace tunesmith::cuda::host

#endif
