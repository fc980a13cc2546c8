// One error type for everything native. `code` reaches JavaScript as `error.code`.
#pragma once

#include <stdexcept>
#include <string>

namespace tunesmith {

// Default visibility: thrown in a backend library and caught in the addon.
class __attribute__((visibility("default"))) CodedError : public std::runtime_error {
 public:
  CodedError(std::string code, const std::string& text) : std::runtime_error(text), code_(std::move(code)) {}
  const std::string& code() const noexcept { return code_; }

 private:
  std::string code_;
};

}  // namespace tunesmith
