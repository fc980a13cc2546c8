// Muon's update of one matrix: momentum, orthogonalised by five Newton-Schulz iterations.
#include <algorithm>
#include <cassert>
#include <cmath>
#include <vector>

#include "backend/reference/ops.h"

namespace tunesmith::reference {

namespace {

using Values = std::vector<double>;

// x [m, n], m the smaller side: 3.4445 x - 4.7750 (x xᵀ) x + 2.0315 (x xᵀ)² x.
Values iterate(const Values& x, int64_t m, int64_t n) {
  Values gram(size_t(m * m)), factor(size_t(m * m)), result(size_t(m * n));
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < m; ++j)
      for (int64_t k = 0; k < n; ++k) gram[size_t(i * m + j)] += x[size_t(i * n + k)] * x[size_t(j * n + k)];
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < m; ++j) {
      double square = 0;
      for (int64_t k = 0; k < m; ++k) square += gram[size_t(i * m + k)] * gram[size_t(k * m + j)];
      factor[size_t(i * m + j)] = 2.0315 * square - 4.7750 * gram[size_t(i * m + j)] + (i == j ? 3.4445 : 0);
    }
  for (int64_t i = 0; i < m; ++i)
    for (int64_t k = 0; k < m; ++k)
      for (int64_t j = 0; j < n; ++j) result[size_t(i * n + j)] += factor[size_t(i * m + k)] * x[size_t(k * n + j)];
  return result;
}

}  // namespace

template <class T>
void muon(Tensor weight, Tensor m, Tensor grad, Tensor, const MuonStep& step) {
  const int64_t rows = weight.rows, cols = weight.cols;
  assert(weight.contiguous() && m.contiguous() && grad.contiguous());
  assert(m.size() == weight.size() && grad.size() == weight.size());
  const bool tall = rows > cols;
  const int64_t small = std::min(rows, cols), large = std::max(rows, cols);
  const auto place = [&](int64_t i) { return size_t(tall ? i % cols * rows + i / cols : i); };
  Values x(size_t(rows * cols));
  double squares = 0;
  for (int64_t i = 0; i < weight.size(); ++i) {
    const double g = double(grad.as<T>()[i]) * step.grad_scale;
    const double mean = step.momentum * m.as<T>()[i] + (1 - step.momentum) * g;
    m.as<T>()[i] = T(mean);
    x[place(i)] = step.momentum * mean + (1 - step.momentum) * g;
    squares += x[place(i)] * x[place(i)];
  }
  for (double& value : x) value /= std::max(std::sqrt(squares), 1e-7);
  for (int iteration = 0; iteration < 5; ++iteration) x = iterate(x, small, large);
  const double rate = step.learning_rate * 0.2 * std::sqrt(double(large));
  for (int64_t i = 0; i < weight.size(); ++i) {
    const double w = weight.as<T>()[i];
    weight.as<T>()[i] = T(w - step.learning_rate * step.weight_decay * w - rate * x[place(i)]);
  }
}

template void muon<float>(Tensor, Tensor, Tensor, Tensor, const MuonStep&);
template void muon<double>(Tensor, Tensor, Tensor, Tensor, const MuonStep&);

}  // namespace tunesmith::reference
