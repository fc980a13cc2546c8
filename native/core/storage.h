// Code per float type, and conversion between the types parameters are stored in and the type they are kept in.
#pragma once

#include <cstring>
#include <string>

#include "core/dtype.h"
#include "core/error.h"
#include "core/float16.h"

namespace tunesmith {

// Calls `use` with a value of the C++ type that stands for a float dtype, and returns what it returns.
template <class Use>
auto with_float_type(DType type, const Use& use) {
  switch (type) {
    case DType::kFloat64:
      return use(double());
    case DType::kFloat32:
      return use(float());
    case DType::kBFloat16:
      return use(BFloat16());
    case DType::kFloat16:
      return use(Float16());
    default:
      throw CodedError("ERR_UNSUPPORTED_DTYPE", std::string(name_of(type)) + " is not a float type");
  }
}

// `count` host elements; neither side need be aligned.
inline void convert(void* out, DType out_type, const void* in, DType in_type, int64_t count) {
  with_float_type(in_type, [&](auto from) {
    with_float_type(out_type, [&](auto to) {
      using From = decltype(from);
      using To = decltype(to);
      const char* source = static_cast<const char*>(in);
      char* target = static_cast<char*>(out);
      for (int64_t i = 0; i < count; i++) {
        From value;
        std::memcpy(&value, source + i * int64_t(sizeof(From)), sizeof(From));
        To result;
        if constexpr (std::is_same_v<From, To>)
          result = value;
        else
          result = To(static_cast<float>(value));
        std::memcpy(target + i * int64_t(sizeof(To)), &result, sizeof(To));
      }
    });
  });
}

}  // namespace tunesmith
