// Scaling of columns and sums over them, as low-rank adapters need them beside their matmuls.
#include <cassert>

#include "backend/reference/ops.h"

namespace tunesmith::reference {

namespace {

template <class T>
double factor(const Tensor& gain, double scale, double shift, int64_t n) {
  return scale * (gain ? double(gain.as<T>()[n]) : 1.0) + shift;
}

}  // namespace

template <class T>
void add_scaled(Tensor y, Tensor x, Tensor gain, double scale, double shift) {
  assert(y.rows == x.rows && y.cols == x.cols && (!gain || gain.size() == y.cols));
  for (int64_t t = 0; t < y.rows; ++t)
    for (int64_t n = 0; n < y.cols; ++n) y.row<T>(t)[n] += T(x.row<T>(t)[n] * factor<T>(gain, scale, shift, n));
}

template <class T>
void scale_columns(Tensor y, Tensor x, Tensor gain, double scale, double shift, Tensor bias) {
  assert(y.rows == x.rows && y.cols == x.cols && (!gain || gain.size() == y.cols));
  assert(!bias || bias.size() == y.cols);
  for (int64_t t = 0; t < y.rows; ++t)
    for (int64_t n = 0; n < y.cols; ++n) {
      const double scaled = x.row<T>(t)[n] * factor<T>(gain, scale, shift, n);
      y.row<T>(t)[n] = T(scaled + (bias ? double(bias.as<T>()[n]) : 0.0));
    }
}

template <class T>
void column_dots(Tensor out, Tensor a, Tensor b, Tensor divisor) {
  assert(a.rows == b.rows && a.cols == b.cols && out.size() == a.cols && divisor.size() == a.cols);
  for (int64_t n = 0; n < a.cols; ++n) {
    double sum = 0;
    for (int64_t t = 0; t < a.rows; ++t) sum += double(a.row<T>(t)[n]) * b.row<T>(t)[n];
    out.as<T>()[n] += T(sum / divisor.as<T>()[n]);
  }
}

#define INSTANTIATE(T)                                                            \
  template void add_scaled<T>(Tensor, Tensor, Tensor, double, double);            \
  template void scale_columns<T>(Tensor, Tensor, Tensor, double, double, Tensor); \
  template void column_dots<T>(Tensor, Tensor, Tensor, Tensor);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace tunesmith::reference
