// y = x · Wᵀ + bias and its three gradients, straight from the master weights, or from quantised ones a row at a time.
#include <algorithm>
#include <cassert>
#include <vector>

#include "backend/reference/ops.h"

namespace tunesmith::reference {

template <class T>
const T* weight_row(const LinearWeight& weight, int64_t n, std::vector<T>& room) {
  if (weight.quantized.empty()) return weight.master.row<T>(n);
  const int64_t cols = weight.master.cols;
  room.resize(size_t(cols));
  for (const Nf4Matrix& part : weight.quantized) {
    if (n < part.rows) {
      for (int64_t k = 0; k < cols; ++k) room[size_t(k)] = T(part.value(n * cols + k));
      break;
    }
    n -= part.rows;
  }
  return room.data();
}

template <class T>
void linear_forward(Tensor y, Tensor x, const LinearWeight& weight, Tensor bias) {
  assert(y.rows == x.rows && y.cols == weight.master.rows && x.cols == weight.master.cols);
  assert(!bias || bias.size() == y.cols);
  std::vector<T> room;
  for (int64_t n = 0; n < y.cols; ++n) {
    const T* w_row = weight_row(weight, n, room);
    for (int64_t m = 0; m < y.rows; ++m) {
      const T* x_row = x.row<T>(m);
      double sum = bias ? double(bias.as<T>()[n]) : 0.0;
      for (int64_t k = 0; k < x.cols; ++k) sum += double(x_row[k]) * w_row[k];
      y.row<T>(m)[n] = T(sum);
    }
  }
}

template <class T>
void linear_backward_input(Tensor dx, Tensor dy, const LinearWeight& weight, bool accumulate) {
  assert(dx.rows == dy.rows && dy.cols == weight.master.rows && dx.cols == weight.master.cols);
  std::vector<double> sums(size_t(dx.size()));
  if (accumulate)
    for (int64_t m = 0; m < dx.rows; ++m) std::copy_n(dx.row<T>(m), dx.cols, sums.data() + m * dx.cols);
  std::vector<T> room;
  for (int64_t n = 0; n < dy.cols; ++n) {
    const T* w_row = weight_row(weight, n, room);
    for (int64_t m = 0; m < dx.rows; ++m) {
      const double gradient = dy.row<T>(m)[n];
      double* sum = sums.data() + m * dx.cols;
      for (int64_t k = 0; k < dx.cols; ++k) sum[k] += gradient * w_row[k];
    }
  }
  for (int64_t m = 0; m < dx.rows; ++m)
    for (int64_t k = 0; k < dx.cols; ++k) dx.row<T>(m)[k] = T(sums[size_t(m * dx.cols + k)]);
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

#define INSTANTIATE(T)                                                               \
  template const T* weight_row<T>(const LinearWeight&, int64_t, std::vector<T>&);    \
  template void linear_forward<T>(Tensor, Tensor, const LinearWeight&, Tensor);      \
  template void linear_backward_input<T>(Tensor, Tensor, const LinearWeight&, bool); \
  template void linear_backward_weight<T>(Tensor, Tensor, Tensor, bool);             \
  template void bias_backward<T>(Tensor, Tensor);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace tunesmith::reference
