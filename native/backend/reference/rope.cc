// Rotary position embedding (arXiv 2104.09864), halves of a head paired as in the Llama checkpoints, over
// the first elements of each head that the table has angles for.
#include <cassert>

#include "backend/reference/ops.h"

namespace tunesmith::reference {

template <class T>
void rope(Tensor x, int32_t heads, int32_t head_dim, Tensor table, const int32_t* positions, bool inverse) {
  assert(x.cols == int64_t(heads) * head_dim && table.cols <= head_dim && table.cols % 2 == 0);
  const int64_t half = table.cols / 2;
  for (int64_t t = 0; t < x.rows; ++t) {
    assert(positions[t] >= 0 && positions[t] < table.rows);
    const T* cosine = table.row<T>(positions[t]);
    const T* sine = cosine + half;
    for (int32_t h = 0; h < heads; ++h) {
      T* a = x.row<T>(t) + h * head_dim;
      T* b = a + half;
      for (int64_t i = 0; i < half; ++i) {
        const double c = cosine[i], s = inverse ? -sine[i] : sine[i];
        const double a_old = a[i], b_old = b[i];
        a[i] = T(a_old * c - b_old * s);
        b[i] = T(b_old * c + a_old * s);
      }
    }
  }
}

template void rope<float>(Tensor, int32_t, int32_t, Tensor, const int32_t*, bool);
template void rope<double>(Tensor, int32_t, int32_t, Tensor, const int32_t*, bool);

}  // namespace tunesmith::reference
