// Adafactor's update of one matrix or vector.
#include <algorithm>
#include <cassert>
#include <cmath>
#include <vector>

#include "backend/reference/ops.h"

namespace tunesmith::reference {

namespace {

constexpr double kSquareEpsilon = 1e-30;

template <class T>
void blend(Tensor moment, const std::vector<double>& means, double beta2) {
  for (int64_t i = 0; i < moment.size(); ++i)
    moment.as<T>()[i] = T(beta2 * moment.as<T>()[i] + (1 - beta2) * means[size_t(i)]);
}

}  // namespace

template <class T>
void adafactor(Tensor weight, Tensor row, Tensor col, Tensor grad, const AdafactorStep& step) {
  const int64_t n = weight.rows, k = weight.cols;
  assert(weight.contiguous() && grad.contiguous() && grad.size() == weight.size() && col.size() == k);
  assert(row ? row.size() == n : n == 1);
  const auto gradient = [&](int64_t i, int64_t j) { return double(grad.as<T>()[i * k + j]) * step.grad_scale; };
  std::vector<double> row_means(static_cast<size_t>(n)), col_means(static_cast<size_t>(k));
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < k; ++j) {
      const double square = gradient(i, j) * gradient(i, j) + kSquareEpsilon;
      row_means[size_t(i)] += square / double(k);
      col_means[size_t(j)] += square / double(n);
    }
  blend<T>(col, col_means, step.beta2);
  double mean = 1;  // of row
  if (row) {
    blend<T>(row, row_means, step.beta2);
    mean = 0;
    for (int64_t i = 0; i < n; ++i) mean += double(row.as<T>()[i]) / double(n);
  }
  const auto update = [&](int64_t i, int64_t j) {
    const double of_row = row ? double(row.as<T>()[i]) / mean : 1.0;
    return gradient(i, j) / (std::sqrt(of_row) * std::sqrt(double(col.as<T>()[j])));
  };
  double squares = 0;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < k; ++j) squares += update(i, j) * update(i, j);
  const double rate = step.learning_rate / std::max(1.0, std::sqrt(squares / double(n * k)));
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < k; ++j) {
      const double w = weight.as<T>()[i * k + j];
      weight.as<T>()[i * k + j] = T(w - step.learning_rate * step.weight_decay * w - rate * update(i, j));
    }
}

template void adafactor<float>(Tensor, Tensor, Tensor, Tensor, const AdafactorStep&);
template void adafactor<double>(Tensor, Tensor, Tensor, Tensor, const AdafactorStep&);

}  // namespace tunesmith::reference
