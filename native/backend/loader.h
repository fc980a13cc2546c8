// Finds and opens backend libraries. A library that is missing or does not load is a normal outcome, kept with its
// reason.
#pragma once

#include <memory>
#include <string>

#include "backend/backend.h"

namespace tunesmith {

// "reference" is always there; "cpu", "cuda" and, for tests, "cuda-host" are libtunesmith_<name>.so beside this
// library, or in $TUNESMITH_BACKEND_DIR. threads 0 = every core this process may use. Throws CodedError
// ERR_BACKEND_UNAVAILABLE with the loader's words, ERR_NO_DEVICE where no GPU can be used.
std::unique_ptr<Backend> create_backend(const std::string& name, int threads);

}  // namespace tunesmith
