// Layer normalisation (arXiv 1607.06450) with the residual addition fused in front.
#include <cassert>
#include <cmath>
#include <vector>

#include "backend/reference/ops.h"

namespace tunesmith::reference {

template <class T>
void layernorm_forward(Tensor out, Tensor y, Tensor statistics, Tensor residual, Tensor delta, Tensor weight,
                       Tensor bias, double epsilon) {
  const int64_t width = residual.cols;
  assert(statistics.rows == 2 && statistics.cols == residual.rows && weight.size() == width);
  assert(!delta || (delta.rows == y.rows && delta.cols == width && out.rows == y.rows && out.cols == width));
  for (int64_t t = 0; t < residual.rows; ++t) {
    const T* x = residual.row<T>(t);
    if (delta) {
      T* sum = out.row<T>(t);
      for (int64_t h = 0; h < width; ++h) sum[h] = residual.row<T>(t)[h] + delta.row<T>(t)[h];
      x = sum;
    }
    double sum = 0, squares = 0;
    for (int64_t h = 0; h < width; ++h) sum += x[h];
    const double mean = sum / double(width);
    for (int64_t h = 0; h < width; ++h) squares += (x[h] - mean) * (x[h] - mean);
    statistics.row<T>(0)[t] = T(mean);
    statistics.row<T>(1)[t] = T(1 / std::sqrt(squares / double(width) + epsilon));
  }
  layernorm_apply<T>(y, delta ? out : residual, statistics, weight, bias);
}

template <class T>
void layernorm_apply(Tensor y, Tensor x, Tensor statistics, Tensor weight, Tensor bias) {
  assert(y.rows == x.rows && y.cols == x.cols && statistics.cols == x.rows && weight.size() == x.cols);
  assert(!bias || bias.size() == x.cols);
  for (int64_t t = 0; t < x.rows; ++t) {
    const double mean = statistics.row<T>(0)[t], rstd = statistics.row<T>(1)[t];
    for (int64_t h = 0; h < x.cols; ++h)
      y.row<T>(t)[h] = T((x.row<T>(t)[h] - mean) * rstd * weight.as<T>()[h] + (bias ? double(bias.as<T>()[h]) : 0));
  }
}

template <class T>
void layernorm_backward(Tensor dx, Tensor dx_compute, Tensor dweight, Tensor dbias, Tensor dy, Tensor x,
                        Tensor statistics, Tensor weight) {
  const int64_t width = x.cols;
  assert(dx.rows == x.rows && dx.cols == width && dy.rows == x.rows && dy.cols == width && statistics.cols == x.rows);
  assert((!dweight || dweight.size() == width) && weight.size() == width && (!dbias || dbias.size() == width));
  assert(!dx_compute || (dx_compute.rows == x.rows && dx_compute.cols == width));
  const T* w = weight.as<T>();
  std::vector<double> dw(static_cast<size_t>(width)), db = dw;
  for (int64_t t = 0; t < x.rows; ++t) {
    const T* gradient = dy.row<T>(t);
    T* sum = dx.row<T>(t);
    const double mean = statistics.row<T>(0)[t], rstd = statistics.row<T>(1)[t];
    const auto normalised = [&](int64_t h) { return (x.row<T>(t)[h] - mean) * rstd; };
    double of_g = 0, of_product = 0;  // means of g and of g · x̂
    for (int64_t h = 0; h < width; ++h) {
      const double g = double(gradient[h]) * w[h];
      of_g += g / double(width);
      of_product += g * normalised(h) / double(width);
    }
    for (int64_t h = 0; h < width; ++h) {
      const double g = double(gradient[h]) * w[h];
      sum[h] = T(sum[h] + rstd * (g - of_g - normalised(h) * of_product));
      if (dx_compute) dx_compute.row<T>(t)[h] = sum[h];
      dw[h] += gradient[h] * normalised(h);
      db[h] += gradient[h];
    }
  }
  const auto add = [&](Tensor to, const std::vector<double>& sums) {
    for (int64_t h = 0; to && h < width; ++h) to.as<T>()[h] = T(to.as<T>()[h] + sums[h]);
  };
  add(dweight, dw);
  add(dbias, db);
}

#define INSTANTIATE(T)                                                                                \
  template void layernorm_forward<T>(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, double); \
  template void layernorm_apply<T>(Tensor, Tensor, Tensor, Tensor, Tensor);                           \
  template void layernorm_backward<T>(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace tunesmith::reference
