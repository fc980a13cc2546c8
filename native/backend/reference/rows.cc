// Gathering and scattering of rows, and conversion between float types.
#include <cassert>
#include <cstring>

#include "backend/reference/ops.h"
#include "core/storage.h"

namespace tunesmith::reference {

void gather_rows(Tensor out, Tensor x, const int32_t* rows) {
  assert(out.dtype == x.dtype && out.cols == x.cols);
  for (int64_t r = 0; r < out.rows; ++r) {
    assert(rows[r] >= 0 && rows[r] < x.rows);
    std::memcpy(out.slice_rows(r, 1).data, x.slice_rows(rows[r], 1).data, size_t(x.cols) * size_of(x.dtype));
  }
}

template <class T>
void scatter_add_rows(Tensor x, Tensor in, const int32_t* rows, int64_t count) {
  assert(in.cols == x.cols && count <= in.rows);
  for (int64_t r = 0; r < count; ++r) {
    assert(rows[r] >= 0 && rows[r] < x.rows);
    for (int64_t c = 0; c < x.cols; ++c) x.row<T>(rows[r])[c] += in.row<T>(r)[c];
  }
}

template void scatter_add_rows<float>(Tensor, Tensor, const int32_t*, int64_t);
template void scatter_add_rows<double>(Tensor, Tensor, const int32_t*, int64_t);

namespace {

// The 16-bit types convert to and from float only; a double on its way there is rounded to float first.
template <class Out, class In>
Out convert(In value) {
  if constexpr (std::is_same_v<Out, In>)
    return value;
  else if constexpr (sizeof(In) == 2)
    return Out(float(value));
  else if constexpr (sizeof(Out) == 2)
    return Out(float(value));
  else
    return Out(value);
}

}  // namespace

void cast(Tensor out, Tensor in) {
  assert(out.rows == in.rows && out.cols == in.cols);
  with_float_type(out.dtype, [&](auto out_type) {
    with_float_type(in.dtype, [&](auto in_type) {
      using Out = decltype(out_type);
      using In = decltype(in_type);
      for (int64_t r = 0; r < in.rows; ++r)
        for (int64_t c = 0; c < in.cols; ++c) out.row<Out>(r)[c] = convert<Out>(in.row<In>(r)[c]);
    });
  });
}

}  // namespace tunesmith::reference
