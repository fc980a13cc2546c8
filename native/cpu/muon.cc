// Muon's update of one matrix. The iterations are three float32 matmuls each, over the smaller side; the identity's
// share of the polynomial is put on the diagonal, so that each iteration is one product.
#include <algorithm>
#include <cmath>
#include <utility>

#include "cpu/cpu.h"
#include "cpu/matmul.h"
#include "cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/muon.cc"
#include "hwy/foreach_target.h"  // defines HWY_TARGET for each instruction set

#include "cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tunesmith::cpu::HWY_NAMESPACE {

// m = μ m + (1 - μ) g; x = μ m + (1 - μ) g.
void muon_momentum(float* x, float* m, const float* grad, const MuonStep& step, int64_t first, int64_t last) {
  const float momentum = float(step.momentum), rest = float((1 - step.momentum) * step.grad_scale);
  for_lanes(first, last, [&](auto d, int64_t i) HWY_ATTR {
    const auto g = hn::Mul(load(d, grad + i), hn::Set(d, rest));
    const auto mean = hn::MulAdd(load(d, m + i), hn::Set(d, momentum), g);
    store(d, mean, m + i);
    store(d, hn::MulAdd(mean, hn::Set(d, momentum), g), x + i);
  });
}

void scale_range(float* x, float scale, int64_t first, int64_t last) {
  for_lanes(first, last,
            [&](auto d, int64_t i) HWY_ATTR { store(d, hn::Mul(load(d, x + i), hn::Set(d, scale)), x + i); });
}

// square = 2.0315 square - 4.7750 gram.
void muon_polynomial(float* square, const float* gram, int64_t first, int64_t last) {
  for_lanes(first, last, [&](auto d, int64_t i) HWY_ATTR {
    const auto linear = hn::Mul(load(d, gram + i), hn::Set(d, -4.7750f));
    store(d, hn::MulAdd(load(d, square + i), hn::Set(d, 2.0315f), linear), square + i);
  });
}

// weight = weight · keep - x · rate.
void muon_apply(float* weight, const float* x, float keep, float rate, int64_t first, int64_t last) {
  for_lanes(first, last, [&](auto d, int64_t i) HWY_ATTR {
    const auto w = hn::Mul(load(d, weight + i), hn::Set(d, keep));
    store(d, hn::NegMulAdd(load(d, x + i), hn::Set(d, rate), w), weight + i);
  });
}

}  // namespace tunesmith::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tunesmith::cpu {

HWY_EXPORT(muon_momentum);
HWY_EXPORT(scale_range);
HWY_EXPORT(muon_polynomial);
HWY_EXPORT(muon_apply);

void CpuBackend::muon(Tensor weight, Tensor m, Tensor grad, Tensor scratch, const MuonStep& step) {
  const int64_t rows = weight.rows, cols = weight.cols, size = rows * cols;
  const bool tall = rows > cols;
  const int64_t small = std::min(rows, cols), large = std::max(rows, cols);
  float* x = scratch.as<float>();
  float* next = x + size;
  float* gram = next + size;
  float* factor = gram + small * small;
  const auto ranges = [&](int64_t count, const auto& body) { parallel_ranges(threads_, count, 1, body); };
  // dst[m, n] = a[m, k] · b[k, n], all float32.
  const auto multiply = [&](float* dst, int64_t m_size, int64_t n_size, int64_t k_size, const float* a,
                            std::pair<int64_t, int64_t> a_strides, const float* b,
                            std::pair<int64_t, int64_t> b_strides) {
    const MatmulProblem problem{m_size,
                                n_size,
                                k_size,
                                DType::kFloat32,
                                {a_strides.first, a_strides.second},
                                false,
                                {b_strides.first, b_strides.second},
                                DType::kFloat32,
                                n_size,
                                false,
                                false};
    matmuls_->run(problem, dst, a, b, nullptr);
  };

  ranges(size, [&](int64_t first, int64_t last) {
    HWY_DYNAMIC_DISPATCH(muon_momentum)(x, m.as<float>(), grad.as<float>(), step, first, last);
  });
  const double norm = std::sqrt(sum_squares(vector(x, DType::kFloat32, size)));
  const float inverse = float(1 / std::max(norm, 1e-7));
  ranges(size, [&](int64_t first, int64_t last) { HWY_DYNAMIC_DISPATCH(scale_range)(x, inverse, first, last); });
  for (int iteration = 0; iteration < 5; ++iteration) {
    // xᵀ x of a tall matrix, x xᵀ of any other.
    if (tall)
      multiply(gram, small, small, large, x, {1, cols}, x, {cols, 1});
    else
      multiply(gram, small, small, large, x, {cols, 1}, x, {1, cols});
    multiply(factor, small, small, small, gram, {small, 1}, gram, {small, 1});
    ranges(small * small, [&](int64_t first, int64_t last) {
      HWY_DYNAMIC_DISPATCH(muon_polynomial)(factor, gram, first, last);
    });
    for (int64_t i = 0; i < small; ++i) factor[i * small + i] += 3.4445f;
    if (tall)
      multiply(next, rows, cols, cols, x, {cols, 1}, factor, {small, 1});
    else
      multiply(next, rows, cols, rows, factor, {small, 1}, x, {cols, 1});
    std::swap(x, next);
  }
  const float keep = float(1 - step.learning_rate * step.weight_decay);
  const float rate = float(step.learning_rate * 0.2 * std::sqrt(double(large)));
  ranges(size, [&](int64_t first, int64_t last) {
    HWY_DYNAMIC_DISPATCH(muon_apply)(weight.as<float>(), x, keep, rate, first, last);
  });
}

}  // namespace tunesmith::cpu
#endif
