// Softmax cross-entropy and its gradient.
#include <algorithm>
#include <cassert>
#include <cmath>

#include "backend/reference/ops.h"

namespace tunesmith::reference {

template <class T>
void cross_entropy(Tensor logits, Tensor dlogits, Tensor loss, int32_t* correct, const int32_t* targets, Tensor weights,
                   double scale, const Objective& objective) {
  assert(loss.size() == logits.rows && weights.size() == logits.rows);
  assert(!dlogits || (dlogits.rows == logits.rows && dlogits.cols == logits.cols));
  assert(dlogits.data != logits.data || dlogits.stride <= logits.stride);
  for (int64_t r = 0; r < logits.rows; ++r) {
    const int32_t target = targets[r];
    assert(target >= 0 && target < logits.cols);
    const T* row = logits.row<T>(r);
    const T* first_largest = std::max_element(row, row + logits.cols);
    const double largest = *first_largest;
    double total = 0;
    for (int64_t c = 0; c < logits.cols; ++c) total += std::exp(row[c] - largest);
    correct[r] = first_largest == row + target;
    // Not through log Σ exp: `largest` would cancel the last digits of a small loss.
    const double nll = std::log(total) + (largest - row[target]), lse = std::log(total) + largest;
    const double smoothing = objective.label_smoothing, vocabulary = double(logits.cols), p = std::exp(-nll);
    double mean = 0;
    for (int64_t c = 0; c < logits.cols; ++c) mean += row[c] / vocabulary;
    const double spread = (1 - smoothing) * nll + smoothing * (lse - mean) + objective.z_loss * lse * lse;
    loss.as<T>()[r] = T(objective.dft ? p * nll : spread);
    if (!dlogits) continue;
    const double weight = double(weights.as<T>()[r]) * scale * (objective.dft ? p : 1);
    // Left to right, each logit read before its place or an earlier one is written: dlogits may lie on logits.
    for (int64_t c = 0; c < logits.cols; ++c) {
      const double wanted = (c == target ? 1 - smoothing : 0) + smoothing / vocabulary;
      const double softmax = std::exp(row[c] - largest) / total;
      dlogits.row<T>(r)[c] = T(weight * (softmax * (1 + 2 * objective.z_loss * lse) - wanted));
    }
  }
}

template void cross_entropy<float>(Tensor, Tensor, Tensor, int32_t*, const int32_t*, Tensor, double, const Objective&);
template void cross_entropy<double>(Tensor, Tensor, Tensor, int32_t*, const int32_t*, Tensor, double, const Objective&);

}  // namespace tunesmith::reference
