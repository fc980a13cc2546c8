// Additions to the residual stream where no norm does them on its way.
#include <cassert>

#include "backend/reference/ops.h"

namespace tunesmith::reference {

template <class T>
void residual_add(Tensor out, Tensor out_compute, Tensor residual, Tensor delta) {
  assert(out.rows == residual.rows && out.cols == residual.cols && delta.rows == out.rows && delta.cols == out.cols);
  assert(!out_compute || (out_compute.rows == out.rows && out_compute.cols == out.cols));
  for (int64_t t = 0; t < out.rows; ++t)
    for (int64_t h = 0; h < out.cols; ++h) {
      out.row<T>(t)[h] = residual.row<T>(t)[h] + delta.row<T>(t)[h];
      if (out_compute) out_compute.row<T>(t)[h] = out.row<T>(t)[h];
    }
}

template void residual_add<float>(Tensor, Tensor, Tensor, Tensor);
template void residual_add<double>(Tensor, Tensor, Tensor, Tensor);

}  // namespace tunesmith::reference
