// Root mean square normalisation (arXiv 1910.07467) with the residual addition fused in front.
#include <cassert>
#include <cmath>
#include <vector>

#include "backend/reference/ops.h"

namespace tunesmith::reference {

template <class T>
void rmsnorm_forward(Tensor out, Tensor y, Tensor rstd, Tensor residual, Tensor delta, Tensor weight, double offset,
                     double epsilon) {
  const int64_t width = residual.cols;
  assert(y.rows == residual.rows && y.cols == width && rstd.size() == y.rows && weight.size() == width);
  assert(!delta || (delta.rows == y.rows && delta.cols == width && out.rows == y.rows && out.cols == width));
  for (int64_t t = 0; t < residual.rows; ++t) {
    const T* x = residual.row<T>(t);
    if (delta) {
      T* sum = out.row<T>(t);
      for (int64_t h = 0; h < width; ++h) sum[h] = residual.row<T>(t)[h] + delta.row<T>(t)[h];
      x = sum;
    }
    double squares = 0;
    for (int64_t h = 0; h < width; ++h) squares += double(x[h]) * x[h];
    const double scale = 1 / std::sqrt(squares / double(width) + epsilon);
    rstd.as<T>()[t] = T(scale);
    for (int64_t h = 0; h < width; ++h) y.row<T>(t)[h] = T(x[h] * scale * (offset + weight.as<T>()[h]));
  }
}

template <class T>
void rmsnorm_apply(Tensor y, Tensor x, Tensor rstd, Tensor weight, double offset) {
  assert(y.rows == x.rows && y.cols == x.cols && rstd.size() == x.rows && weight.size() == x.cols);
  for (int64_t t = 0; t < x.rows; ++t) {
    const double scale = rstd.as<T>()[t];
    for (int64_t h = 0; h < x.cols; ++h) y.row<T>(t)[h] = T(x.row<T>(t)[h] * scale * (offset + weight.as<T>()[h]));
  }
}

template <class T>
void rmsnorm_backward(Tensor dx, Tensor dx_compute, Tensor dweight, Tensor dy, Tensor x, Tensor rstd, Tensor weight,
                      double offset) {
  const int64_t width = x.cols;
  assert(dx.rows == x.rows && dx.cols == width && dy.rows == x.rows && dy.cols == width && rstd.size() == x.rows);
  assert((!dweight || dweight.size() == width) && weight.size() == width);
  assert(!dx_compute || (dx_compute.rows == x.rows && dx_compute.cols == width));
  const T* w = weight.as<T>();
  std::vector<double> dw(static_cast<size_t>(width));
  if (dweight) dw.assign(dweight.as<T>(), dweight.as<T>() + width);
  for (int64_t t = 0; t < x.rows; ++t) {
    const T* x_row = x.row<T>(t);
    const T* dy_row = dy.row<T>(t);
    T* dx_row = dx.row<T>(t);
    const double scale = rstd.as<T>()[t];
    double mean = 0;  // of g · x
    for (int64_t h = 0; h < width; ++h) mean += double(dy_row[h]) * (offset + w[h]) * x_row[h] / double(width);
    for (int64_t h = 0; h < width; ++h) {
      const double g = double(dy_row[h]) * (offset + w[h]);
      dx_row[h] = T(dx_row[h] + scale * (g - x_row[h] * scale * scale * mean));
      if (dx_compute) dx_compute.row<T>(t)[h] = dx_row[h];
      dw[h] += dy_row[h] * x_row[h] * scale;
    }
  }
  if (!dweight) return;
  for (int64_t h = 0; h < width; ++h) dweight.as<T>()[h] = T(dw[h]);
}

#define INSTANTIATE(T)                                                                              \
  template void rmsnorm_forward<T>(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, double, double); \
  template void rmsnorm_apply<T>(Tensor, Tensor, Tensor, Tensor, double);                           \
  template void rmsnorm_backward<T>(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, double);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace tunesmith::reference
