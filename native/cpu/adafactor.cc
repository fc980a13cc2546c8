// Adafactor's update of one matrix or vector, in three passes over the gradient: means of squares, size of the update,
// update.
#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/cpu.h"
#include "cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/adafactor.cc"
#include "hwy/foreach_target.h"  // defines HWY_TARGET for each instruction set

#include "cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tunesmith::cpu::HWY_NAMESPACE {

// Of (grad · scale)² over row[0, k): returns the sum and adds each to column_sums.
double add_squares(const float* grad, float scale, float* column_sums, int64_t k) {
  double total = 0;
  constexpr int64_t kChunk = 1024;  // float32 sums of a chunk, float64 sums of chunks
  for (int64_t first = 0; first < k; first += kChunk) {
    const int64_t last = std::min(k, first + kChunk);
    const FloatTag d;
    auto sum = hn::Zero(d);
    float rest = 0;
    for_lanes(first, last, [&](auto tag, int64_t i) HWY_ATTR {
      const auto g = hn::Mul(load(tag, grad + i), hn::Set(tag, scale));
      const auto square = hn::Mul(g, g);
      store(tag, hn::Add(load(tag, column_sums + i), square), column_sums + i);
      if constexpr (hn::MaxLanes(decltype(tag)()) == 1)
        rest += hn::GetLane(square);
      else
        sum = hn::Add(sum, square);
    });
    total += double(hn::GetLane(hn::SumOfLanes(d, sum))) + double(rest);
  }
  return total;
}

// Σ (grad · scale · column)² over [0, k).
double scaled_squares(const float* grad, float scale, const float* column, int64_t k) {
  double total = 0;
  constexpr int64_t kChunk = 1024;
  for (int64_t first = 0; first < k; first += kChunk) {
    const int64_t last = std::min(k, first + kChunk);
    const FloatTag d;
    auto sum = hn::Zero(d);
    float rest = 0;
    for_lanes(first, last, [&](auto tag, int64_t i) HWY_ATTR {
      const auto u = hn::Mul(hn::Mul(load(tag, grad + i), hn::Set(tag, scale)), load(tag, column + i));
      if constexpr (hn::MaxLanes(decltype(tag)()) == 1)
        rest += hn::GetLane(u) * hn::GetLane(u);
      else
        sum = hn::MulAdd(u, u, sum);
    });
    total += double(hn::GetLane(hn::SumOfLanes(d, sum))) + double(rest);
  }
  return total;
}

// weight = weight · keep - grad · scale · column.
void apply_update(float* weight, const float* grad, float scale, const float* column, float keep, int64_t k) {
  for_lanes(0, k, [&](auto d, int64_t i) HWY_ATTR {
    const auto u = hn::Mul(hn::Mul(load(d, grad + i), hn::Set(d, scale)), load(d, column + i));
    store(d, hn::Sub(hn::Mul(load(d, weight + i), hn::Set(d, keep)), u), weight + i);
  });
}

}  // namespace tunesmith::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tunesmith::cpu {

HWY_EXPORT(add_squares);
HWY_EXPORT(scaled_squares);
HWY_EXPORT(apply_update);

namespace {

constexpr double kSquareEpsilon = 1e-30;

}  // namespace

void CpuBackend::adafactor(Tensor weight, Tensor row, Tensor col, Tensor grad, const AdafactorStep& step) {
  const int64_t n = weight.rows, k = weight.cols;
  const double beta2 = step.beta2;
  std::vector<double> row_sums(static_cast<size_t>(n));
  std::vector<float> partial(size_t(threads_ * k));  // each part sums its rows apart; the parts are added in order
  parallel_parts(threads_, n, [&](int part, int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i)
      row_sums[size_t(i)] = HWY_DYNAMIC_DISPATCH(add_squares)(grad.as<float>() + i * k, float(step.grad_scale),
                                                              partial.data() + part * k, k);
  });
  std::vector<float> column(static_cast<size_t>(k));  // 1 / sqrt of col
  for (int64_t j = 0; j < k; ++j) {
    double sum = 0;
    for (int part = 0; part < threads_; ++part) sum += double(partial[size_t(part * k + j)]);
    float& moment = col.as<float>()[j];
    moment = float(beta2 * double(moment) + (1 - beta2) * (sum / double(n) + kSquareEpsilon));
    column[size_t(j)] = float(1 / std::sqrt(double(moment)));
  }
  std::vector<float> scale(static_cast<size_t>(n), float(step.grad_scale));  // of each row's gradient
  if (row) {
    double mean = 0;
    for (int64_t i = 0; i < n; ++i) {
      float& moment = row.as<float>()[i];
      moment = float(beta2 * double(moment) + (1 - beta2) * (row_sums[size_t(i)] / double(k) + kSquareEpsilon));
      mean += double(moment) / double(n);
    }
    for (int64_t i = 0; i < n; ++i)
      scale[size_t(i)] = float(step.grad_scale / std::sqrt(double(row.as<float>()[i]) / mean));
  }
  parallel_ranges(threads_, n, k, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i)
      row_sums[size_t(i)] =
          HWY_DYNAMIC_DISPATCH(scaled_squares)(grad.as<float>() + i * k, scale[size_t(i)], column.data(), k);
  });
  double squares = 0;
  for (const double sum : row_sums) squares += sum;
  const double rate = step.learning_rate / std::max(1.0, std::sqrt(squares / double(n * k)));
  const float keep = float(1 - step.learning_rate * step.weight_decay);
  parallel_ranges(threads_, n, k, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) HWY_DYNAMIC_DISPATCH(apply_update)
    (weight.as<float>() + i * k, grad.as<float>() + i * k, float(rate * double(scale[size_t(i)])), column.data(), keep,
     k);
  });
}

}  // namespace tunesmith::cpu
#endif
