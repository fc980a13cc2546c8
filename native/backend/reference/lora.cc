// A weight with its low-rank update (arXiv 2106.09685): the norms of its rows for DoRA (arXiv 2402.09353), and the
// update written into it.
#include <cassert>
#include <cmath>
#include <vector>

#include "backend/reference/ops.h"

namespace tunesmith::reference {

namespace {

// weight_row += scale · (row n of b) · a, in double.
template <class T>
void updated_row(std::vector<double>& row, const T* weight_row, const Tensor& a, const Tensor& b, double scale,
                 int64_t n) {
  row.assign(weight_row, weight_row + a.cols);
  for (int64_t r = 0; r < a.rows; ++r) {
    const double factor = scale * b.row<T>(n)[r];
    for (int64_t k = 0; k < a.cols; ++k) row[size_t(k)] += factor * a.row<T>(r)[k];
  }
}

}  // namespace

template <class T>
void lora_norm(Tensor norm, Tensor gain, Tensor magnitude, const LinearWeight& w, int64_t first, Tensor a, Tensor b,
               double scale) {
  assert(a.cols == w.master.cols && b.rows == norm.size() && a.rows == b.cols);
  assert(first + norm.size() <= w.master.rows);
  assert(!gain || (gain.size() == norm.size() && magnitude.size() == norm.size()));
  std::vector<double> row;
  std::vector<T> room;
  for (int64_t n = 0; n < norm.size(); ++n) {
    updated_row<T>(row, weight_row<T>(w, first + n, room), a, b, scale, n);
    double squares = 0;
    for (const double value : row) squares += value * value;
    norm.as<T>()[n] = T(std::sqrt(squares));
    if (gain) gain.as<T>()[n] = T(magnitude.as<T>()[n] / std::sqrt(squares));
  }
}

template <class T>
void lora_merge(Tensor weight, Tensor a, Tensor b, double scale, Tensor gain) {
  assert(a.cols == weight.cols && b.rows == weight.rows && a.rows == b.cols);
  assert(!gain || gain.size() == weight.rows);
  std::vector<double> row;
  for (int64_t n = 0; n < weight.rows; ++n) {
    updated_row<T>(row, weight.row<T>(n), a, b, scale, n);
    const double factor = gain ? double(gain.as<T>()[n]) : 1.0;
    for (int64_t k = 0; k < weight.cols; ++k) weight.row<T>(n)[k] = T(factor * row[size_t(k)]);
  }
}

#define INSTANTIATE(T)                                                                                      \
  template void lora_norm<T>(Tensor, Tensor, Tensor, const LinearWeight&, int64_t, Tensor, Tensor, double); \
  template void lora_merge<T>(Tensor, Tensor, Tensor, double, Tensor);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace tunesmith::reference
