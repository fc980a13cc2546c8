// Root mean square normalisation (arXiv 1910.07467) of groups of columns that share their weights.
#include <cassert>
#include <cmath>
#include <vector>

#include "backend/reference/ops.h"

namespace tunesmith::reference {

namespace {

template <class T>
double reciprocal_root(const T* x, int64_t n, double epsilon) {
  double squares = 0;
  for (int64_t i = 0; i < n; ++i) squares += double(x[i]) * x[i];
  return 1 / std::sqrt(squares / double(n) + epsilon);
}

}  // namespace

template <class T>
void group_rmsnorm_forward(Tensor y, Tensor x, int32_t groups, Tensor weight, double offset, double epsilon) {
  const int64_t width = weight.size();
  assert(x.cols == groups * width && y.rows == x.rows && y.cols == x.cols);
  for (int64_t t = 0; t < x.rows; ++t)
    for (int32_t g = 0; g < groups; ++g) {
      const T* in = x.row<T>(t) + g * width;
      const double rstd = reciprocal_root(in, width, epsilon);
      T* out = y.row<T>(t) + g * width;
      for (int64_t i = 0; i < width; ++i) out[i] = T(in[i] * rstd * (offset + weight.as<T>()[i]));
    }
}

template <class T>
void group_rmsnorm_backward(Tensor dx, Tensor dweight, Tensor dy, Tensor x, int32_t groups, Tensor weight,
                            double offset, double epsilon) {
  const int64_t width = weight.size();
  assert(x.cols == groups * width && dy.rows == x.rows && dy.cols == x.cols && dx.rows == x.rows && dx.cols == x.cols);
  assert(!dweight || dweight.size() == width);
  std::vector<double> dw(static_cast<size_t>(width));
  for (int64_t t = 0; t < x.rows; ++t)
    for (int32_t g = 0; g < groups; ++g) {
      const T* in = x.row<T>(t) + g * width;
      const T* gradient = dy.row<T>(t) + g * width;
      T* out = dx.row<T>(t) + g * width;
      const double rstd = reciprocal_root(in, width, epsilon);
      const auto weighted = [&](int64_t i) { return gradient[i] * (offset + weight.as<T>()[i]); };
      double mean = 0;  // of g · x
      for (int64_t i = 0; i < width; ++i) mean += weighted(i) * in[i] / double(width);
      for (int64_t i = 0; i < width; ++i) {
        dw[i] += gradient[i] * in[i] * rstd;
        out[i] = T(rstd * (weighted(i) - in[i] * rstd * rstd * mean));
      }
    }
  for (int64_t i = 0; dweight && i < width; ++i) dweight.as<T>()[i] = T(dweight.as<T>()[i] + dw[i]);
}

#define INSTANTIATE(T)                                                                     \
  template void group_rmsnorm_forward<T>(Tensor, Tensor, int32_t, Tensor, double, double); \
  template void group_rmsnorm_backward<T>(Tensor, Tensor, Tensor, Tensor, int32_t, Tensor, double, double);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace tunesmith::reference
