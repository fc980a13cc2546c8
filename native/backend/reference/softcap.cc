// Logits kept within a cap (Gemma 2, arXiv 2408.00118).
#include <cassert>
#include <cmath>

#include "backend/reference/ops.h"

namespace tunesmith::reference {

template <class T>
void softcap_forward(Tensor x, double cap) {
  for (int64_t r = 0; r < x.rows; ++r)
    for (int64_t c = 0; c < x.cols; ++c) x.row<T>(r)[c] = T(cap * std::tanh(x.row<T>(r)[c] / cap));
}

template <class T>
void softcap_backward(Tensor dx, Tensor y, double cap) {
  assert(dx.rows == y.rows && dx.cols == y.cols);
  for (int64_t r = 0; r < y.rows; ++r)
    for (int64_t c = 0; c < y.cols; ++c) {
      const double share = y.row<T>(r)[c] / cap;
      dx.row<T>(r)[c] = T(dx.row<T>(r)[c] * (1 - share * share));
    }
}

#define INSTANTIATE(T)                              \
  template void softcap_forward<T>(Tensor, double); \
  template void softcap_backward<T>(Tensor, Tensor, double);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace tunesmith::reference
