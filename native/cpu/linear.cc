// Linear layers on oneDNN. bfloat16 weights are packed once after loading for inference. In training they are packed
// from the float32 master on the fly, for the forward pass and for the input gradient: that costs one read of the
// master each, while copies that stay would cost 2 bytes per parameter each. For the weight gradient both operands are
// brought into the order of oneDNN's liking first, which it does more slowly itself. float32 matmuls read everything
// where it lies. Quantised weights are in linear_quantized.cc.
#include <algorithm>

#include "cpu/cpu.h"
#include "cpu/linear.h"
#include "cpu/matmul.h"
#include "cpu/pack.h"
#include "cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/linear.cc"
#include "hwy/foreach_target.h"  // defines HWY_TARGET for each instruction set

#include "cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tunesmith::cpu::HWY_NAMESPACE {

template <class C>
void add_rows(float* sum, const Tensor& x, int64_t first, int64_t last) {
  for (int64_t r = 0; r < x.rows; ++r) {
    const C* row = x.row<C>(r);
    for_lanes(first, last,
              [&](auto d, int64_t i) HWY_ATTR { store(d, hn::Add(load(d, sum + i), load(d, row + i)), sum + i); });
  }
}

void add_column_sums(float* sum, const Tensor& x, int64_t first, int64_t last) {
  const auto run = x.dtype == DType::kFloat32 ? add_rows<float> : add_rows<BFloat16>;
  run(sum, x, first, last);
}

}  // namespace tunesmith::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tunesmith::cpu {

HWY_EXPORT(add_column_sums);

namespace {

MatmulProblem weight_gradient_problem(const Tensor& dw, const Tensor& dy, const Tensor& x, bool accumulate) {
  return {dy.cols,       x.cols,   dy.rows,   dy.dtype,   {1, dy.stride}, false,
          {x.stride, 1}, dw.dtype, dw.stride, accumulate, false};
}

// Rows of dw at a time: dyᵀ is made for so many, in scratch.
constexpr int64_t kGradientRows = 4096;

// The same as weight_gradient_problem, for `rows` of dw, from dyᵀ and packed x.
MatmulProblem packed_weight_gradient_problem(const Tensor& dw, int64_t rows, const Tensor& x, bool accumulate) {
  return {rows, x.cols, x.rows, x.dtype, {x.rows, 1}, true, {0, 0}, dw.dtype, dw.stride, accumulate, false};
}

}  // namespace

// Bytes of packed x and of dyᵀ.
size_t CpuBackend::weight_gradient_room(int64_t rows, const Tensor& x) const {
  return round_to_scratch(matmuls_->packed_weights(x.rows, x.cols).bytes) +
         round_to_scratch(size_t(rows * x.rows) * sizeof(BFloat16));
}

size_t CpuBackend::linear_prepared_bytes(const LinearShape& s) const {
  const bool packs = s.compute == DType::kBFloat16 && s.use == LinearUse::kInference && !s.quantized;
  return packs ? matmuls_->packed_weights(s.k, s.n).bytes : 0;
}

size_t CpuBackend::linear_scratch_bytes(int64_t max_rows, const LinearShape& s) const {
  const std::array<int64_t, 6> key{max_rows, s.n, s.k, int64_t(s.compute), int64_t(s.use), s.quantized};
  if (const auto known = scratch_bytes_.find(key); known != scratch_bytes_.end()) return known->second;
  return scratch_bytes_[key] = s.quantized ? quantized_scratch_bytes(max_rows, s) : plain_scratch_bytes(max_rows, s);
}

size_t CpuBackend::plain_scratch_bytes(int64_t max_rows, const LinearShape& s) const {
  const auto [n, k, compute, use, quantized] = s;
  const bool packs = use != LinearUse::kInference && compute == DType::kBFloat16;
  size_t most = 0;
  for (int64_t rows = 1;; rows = std::min(4 * rows, max_rows)) {
    const Tensor x = matrix(nullptr, compute, rows, k), y = matrix(nullptr, compute, rows, n);
    const Tensor wide_y = matrix(nullptr, DType::kFloat32, rows, n), dw = matrix(nullptr, DType::kFloat32, n, k);
    most = std::max({most, matmuls_->scratch_bytes(forward_problem(y, x, n, k, false)),
                     matmuls_->scratch_bytes(forward_problem(wide_y, x, n, k, true))});
    if (use != LinearUse::kInference) {
      const Tensor wide_x = matrix(nullptr, DType::kFloat32, rows, k);
      most = std::max({most, matmuls_->scratch_bytes(input_gradient_problem(x, y, n, k, false)),
                       matmuls_->scratch_bytes(input_gradient_problem(wide_x, y, n, k, true))});
    }
    if (use == LinearUse::kTrained) {
      most = std::max(most, matmuls_->scratch_bytes(weight_gradient_problem(dw, y, x, true)));
      const int64_t dw_rows = std::min(n, kGradientRows);
      if (packs)
        most = std::max(most, matmuls_->scratch_bytes(packed_weight_gradient_problem(dw, dw_rows, x, true)) +
                                  weight_gradient_room(dw_rows, x));
    }
    if (rows >= max_rows) break;
  }
  // The packed weights of an input gradient stay while weight gradients are computed (see Matmuls::hold_weights).
  if (packs) {
    most += round_to_scratch(std::max(matmuls_->packed_weights(k, n).bytes, matmuls_->packed_weights(n, k).bytes));
  }
  return most;
}

void CpuBackend::set_scratch(void* memory, size_t bytes) {
  matmuls_->forget_held_weights();
  scratch_.set(memory, bytes);
}

void CpuBackend::linear_prepare(const LinearWeight& weight, LinearUse use) {
  matmuls_->forget_held_weights();
  if (weight.compute != DType::kBFloat16 || use != LinearUse::kInference || !weight.quantized.empty()) return;
  const Tensor& w = weight.master;
  matmuls_->pack(weight.prepared, w.as<float>(), w.cols, w.rows, 1, w.stride);
}

const void* CpuBackend::hold_master(const MatmulProblem& problem, const Tensor& master) {
  return matmuls_->hold_weights(problem, master.data, [&](void* to) {
    matmuls_->pack(to, master.as<float>(), problem.k, problem.n, problem.weights_strides[0],
                   problem.weights_strides[1]);
  });
}

void CpuBackend::linear_forward(Tensor y, Tensor x, const LinearWeight& weight, Tensor bias) {
  if (x.rows == 0) return;
  if (!weight.quantized.empty()) return quantized_forward(y, x, weight, bias);
  const Tensor& w = weight.master;
  const MatmulProblem problem = forward_problem(y, x, w.rows, w.cols, bool(bias));
  const void* operand = w.data;
  if (problem.packed_weights) operand = weight.prepared ? weight.prepared : hold_master(problem, w);
  matmuls_->run(problem, y.data, x.data, operand, bias ? bias.as<float>() : nullptr);
}

void CpuBackend::linear_backward_input(Tensor dx, Tensor dy, const LinearWeight& weight, bool accumulate) {
  if (dy.rows == 0) return;
  if (!weight.quantized.empty()) return quantized_backward_input(dx, dy, weight, accumulate);
  const Tensor& w = weight.master;
  const MatmulProblem problem = input_gradient_problem(dx, dy, w.rows, w.cols, accumulate);
  const void* operand = problem.packed_weights ? hold_master(problem, w) : w.data;
  matmuls_->run(problem, dx.data, dy.data, operand, nullptr);
}

void CpuBackend::linear_backward_weight(Tensor dw, Tensor dy, Tensor x, bool accumulate) {
  if (dy.rows == 0) {
    if (!accumulate)
      for (int64_t r = 0; r < dw.rows; ++r) std::fill_n(dw.row<float>(r), dw.cols, 0.0f);
    return;
  }
  if (x.dtype == DType::kFloat32 || !matmuls_->packed_weights(x.rows, x.cols).known) {
    matmuls_->run(weight_gradient_problem(dw, dy, x, accumulate), dw.data, dy.data, x.data, nullptr);
    return;
  }
  const PackedWeights& layout = matmuls_->packed_weights(x.rows, x.cols);
  const char* packed_at = nullptr;
  for (int64_t first = 0; first < dw.rows; first += kGradientRows) {
    const int64_t rows = std::min(kGradientRows, dw.rows - first);
    const MatmulProblem problem = packed_weight_gradient_problem(dw, rows, x, accumulate);
    char* packed = matmuls_->room(problem, weight_gradient_room(std::min(dw.rows, kGradientRows), x));
    if (packed != packed_at) pack_operand(packed, layout, x, threads_);
    packed_at = packed;
    auto* transposed = reinterpret_cast<BFloat16*>(packed + round_to_scratch(layout.bytes));
    transpose(transposed, dy.slice_cols(first, rows), threads_);
    matmuls_->run(problem, dw.row<float>(first), transposed, packed, nullptr);
  }
}

void CpuBackend::bias_backward(Tensor dbias, Tensor dy) {
  parallel_ranges(threads_, dy.cols, dy.rows, [&](int64_t first, int64_t last) {
    HWY_DYNAMIC_DISPATCH(add_column_sums)(dbias.as<float>(), dy, first, last);
  });
}

}  // namespace tunesmith::cpu
#endif
