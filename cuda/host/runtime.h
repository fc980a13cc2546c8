// Device memory on the CPU: what the twins of the CUDA runtime (runtime.cc) know of it.
#pragma once

#include <cstddef>

namespace tunesmith::cuda::host {

// Throws CodedError ERR_KERNEL unless [pointer, pointer + bytes) lies inside one living allocation.
void check_range(const void* pointer, size_t bytes, const char* what);

}  // namespace tunesmith::cuda::host
