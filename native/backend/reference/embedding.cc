// Rows of the embedding table, and the gradient scattered back into them.
#include <algorithm>
#include <cassert>

#include "backend/reference/ops.h"

namespace tunesmith::reference {

template <class T>
void embedding_forward(Tensor out, Tensor table, const int32_t* tokens) {
  assert(out.cols == table.cols);
  for (int64_t t = 0; t < out.rows; ++t) {
    assert(tokens[t] >= 0 && tokens[t] < table.rows);
    std::copy_n(table.row<T>(tokens[t]), out.cols, out.row<T>(t));
  }
}

template <class T>
void embedding_backward(Tensor dtable, Tensor dout, const int32_t* tokens) {
  assert(dout.cols == dtable.cols);
  for (int64_t t = 0; t < dout.rows; ++t) {
    assert(tokens[t] >= 0 && tokens[t] < dtable.rows);
    T* gradient = dtable.row<T>(tokens[t]);
    for (int64_t h = 0; h < dout.cols; ++h) gradient[h] += dout.row<T>(t)[h];
  }
}

#define INSTANTIATE(T)                                                \
  template void embedding_forward<T>(Tensor, Tensor, const int32_t*); \
  template void embedding_backward<T>(Tensor, Tensor, const int32_t*);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace tunesmith::reference
