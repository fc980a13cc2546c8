// Rows of an embedding table, scaled, and the gradient scattered back into them.
#include <cassert>

#include "backend/reference/ops.h"

namespace tunesmith::reference {

template <class T>
void embedding_forward(Tensor out, Tensor table, const int32_t* tokens, double scale, bool accumulate) {
  assert(out.cols == table.cols);
  for (int64_t t = 0; t < out.rows; ++t) {
    assert(tokens[t] >= 0 && tokens[t] < table.rows);
    for (int64_t h = 0; h < out.cols; ++h) {
      const double row = scale * table.row<T>(tokens[t])[h];
      out.row<T>(t)[h] = T(accumulate ? out.row<T>(t)[h] + row : row);
    }
  }
}

template <class T>
void embedding_backward(Tensor dtable, Tensor dout, const int32_t* tokens, double scale) {
  assert(dout.cols == dtable.cols);
  for (int64_t t = 0; t < dout.rows; ++t) {
    assert(tokens[t] >= 0 && tokens[t] < dtable.rows);
    T* gradient = dtable.row<T>(tokens[t]);
    for (int64_t h = 0; h < dout.cols; ++h) gradient[h] = T(gradient[h] + scale * dout.row<T>(t)[h]);
  }
}

#define INSTANTIATE(T)                                                              \
  template void embedding_forward<T>(Tensor, Tensor, const int32_t*, double, bool); \
  template void embedding_backward<T>(Tensor, Tensor, const int32_t*, double);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace tunesmith::reference
