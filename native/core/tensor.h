// A view of a row-major matrix whose rows may lie apart. Everything in a packed decoder step is [rows, columns]:
// tokens by features, outputs by inputs. A vector is one row. A view owns nothing.
#pragma once

#include <cassert>
#include <cstdint>

#include "core/dtype.h"

namespace tunesmith {

struct Tensor {
  void* data = nullptr;
  DType dtype = DType::kFloat32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;  // elements from one row to the next

  explicit operator bool() const { return data != nullptr; }
  int64_t size() const { return rows * cols; }
  bool contiguous() const { return stride == cols || rows <= 1; }

  template <class T>
  T* as() const {
    assert(dtype == dtype_of<T>());
    return static_cast<T*>(data);
  }
  template <class T>
  T* row(int64_t index) const {
    return as<T>() + index * stride;
  }
  // Rows [first, first + count).
  Tensor slice_rows(int64_t first, int64_t count) const {
    return {static_cast<char*>(data) + first * stride * int64_t(size_of(dtype)), dtype, count, cols, stride};
  }
  // Columns [first, first + count).
  Tensor slice_cols(int64_t first, int64_t count) const {
    return {static_cast<char*>(data) + first * int64_t(size_of(dtype)), dtype, rows, count, stride};
  }
};

inline Tensor matrix(void* data, DType dtype, int64_t rows, int64_t cols) { return {data, dtype, rows, cols, cols}; }
inline Tensor vector(void* data, DType dtype, int64_t size) { return {data, dtype, 1, size, size}; }

}  // namespace tunesmith
