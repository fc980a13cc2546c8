// The oracle: every op of backend.h as plain loops, in float32 and float64. One thread, no device memory; sums are
// taken in double whatever the tensors hold, and rounded once.
#pragma once

#include <memory>

#include "backend/backend.h"

namespace tunesmith {

std::unique_ptr<Backend> create_reference_backend();

}  // namespace tunesmith
