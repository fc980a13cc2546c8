// y = x · Wᵀ + bias and its three gradients, straight from the master weights.
#include <cassert>
#include <vector>

#include "backend/reference/ops.h"

namespace tunesmith::reference {

template <class T>
void linear_forward(Tensor y, Tensor x, Tensor weight, Tensor bias) {
  assert(y.rows == x.rows && y.cols == weight.rows && x.cols == weight.cols);
  assert(!bias || bias.size() == y.cols);
  for (int64_t m = 0; m < y.rows; ++m) {
    const T* x_row = x.row<T>(m);
    for (int64_t n = 0; n < y.cols; ++n) {
      const T* w_row = weight.row<T>(n);
      double sum = bias ? double(bias.as<T>()[n]) : 0.0;
      for (int64_t k = 0; k < x.cols; ++k) sum += double(x_row[k]) * w_row[k];
      y.row<T>(m)[n] = T(sum);
    }
  }
}

template <class T>
void linear_backward_input(Tensor dx, Tensor dy, Tensor weight, bool accumulate) {
  assert(dx.rows == dy.rows && dy.cols == weight.rows && dx.cols == weight.cols);
  std::vector<double> sum(dx.cols);  // one row of dx
  for (int64_t m = 0; m < dx.rows; ++m) {
    T* dx_row = dx.row<T>(m);
    for (int64_t k = 0; k < dx.cols; ++k) sum[k] = accumulate ? double(dx_row[k]) : 0.0;
    for (int64_t n = 0; n < dy.cols; ++n) {
      const double gradient = dy.row<T>(m)[n];
      const T* w_row = weight.row<T>(n);
      for (int64_t k = 0; k < dx.cols; ++k) sum[k] += gradient * w_row[k];
    }
    for (int64_t k = 0; k < dx.cols; ++k) dx_row[k] = T(sum[k]);
  }
}

template <class T>
void linear_backward_weight(Tensor dw, Tensor dy, Tensor x, bool accumulate) {
  assert(dw.rows == dy.cols && dw.cols == x.cols && dy.rows == x.rows);
  std::vector<double> sum(dw.cols);  // one row of dw
  for (int64_t n = 0; n < dw.rows; ++n) {
    T* dw_row = dw.row<T>(n);
    for (int64_t k = 0; k < dw.cols; ++k) sum[k] = accumulate ? double(dw_row[k]) : 0.0;
    for (int64_t m = 0; m < dy.rows; ++m) {
      const double gradient = dy.row<T>(m)[n];
      const T* x_row = x.row<T>(m);
      for (int64_t k = 0; k < dw.cols; ++k) sum[k] += gradient * x_row[k];
    }
    for (int64_t k = 0; k < dw.cols; ++k) dw_row[k] = T(sum[k]);
  }
}

template <class T>
void bias_backward(Tensor dbias, Tensor dy) {
  assert(dbias.size() == dy.cols);
  T* gradient = dbias.as<T>();
  for (int64_t n = 0; n < dy.cols; ++n) {
    double sum = gradient[n];
    for (int64_t m = 0; m < dy.rows; ++m) sum += dy.row<T>(m)[n];
    gradient[n] = T(sum);
  }
}

#define INSTANTIATE(T)                                                   \
  template void linear_forward<T>(Tensor, Tensor, Tensor, Tensor);       \
  template void linear_backward_input<T>(Tensor, Tensor, Tensor, bool);  \
  template void linear_backward_weight<T>(Tensor, Tensor, Tensor, bool); \
  template void bias_backward<T>(Tensor, Tensor);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace tunesmith::reference
