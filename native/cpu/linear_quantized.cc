// Linear layers with NF4 weights, made anew for every call in scratch: in bfloat16 straight into the packed layout of
// one whole matrix, as for weights with a master; in float32 a panel of it at a time, because no other weight takes
// scratch there.
#include <algorithm>

#include "cpu/cpu.h"
#include "cpu/linear.h"
#include "cpu/nf4.h"
#include "cpu/pack.h"
#include "cpu/parallel.h"

namespace tunesmith::cpu {

namespace {

// Floats of a panel: large enough for matmuls to reach their speed.
constexpr int64_t kPanelFloats = int64_t(1) << 20;

// Rows or columns of a panel of `length` each.
int64_t panel_width(int64_t length, int64_t all) {
  return std::min(all, std::max<int64_t>(kPanelFloats / length / 64 * 64, 64));
}

// y[:, panel] = x · W[panel, :]ᵀ; dx[:, panel] = dy · W[:, panel].
MatmulProblem forward_panel(const Tensor& y, const Tensor& x, bool bias) {
  return forward_problem(y, x, y.cols, x.cols, bias);
}
MatmulProblem gradient_panel(const Tensor& dx, const Tensor& dy, bool accumulate) {
  return input_gradient_problem(dx, dy, dy.cols, dx.cols, accumulate);
}

size_t plain_bytes(int64_t rows, int64_t cols) { return round_to_scratch(size_t(rows * cols) * sizeof(BFloat16)); }

void fill_panel(float* to, const LinearWeight& weight, int64_t first_row, int64_t rows, int64_t first_col, int64_t cols,
                int threads) {
  parallel_ranges(threads, rows, cols, [&](int64_t first, int64_t last) {
    nf4_rectangle(to + first * cols, cols, weight.quantized, first_row + first, last - first, first_col, cols);
  });
}

}  // namespace

size_t CpuBackend::quantized_scratch_bytes(int64_t max_rows, const LinearShape& s) const {
  const bool packs = s.compute == DType::kBFloat16, backward = s.use != LinearUse::kInference;
  size_t most = 0;
  for (int64_t rows = 1;; rows = std::min(4 * rows, max_rows)) {
    const auto need = [&](MatmulProblem problem) {
      if (packs) problem.packed_weights = matmuls_->packed_weights(problem.k, problem.n).known;
      most = std::max(most, matmuls_->scratch_bytes(problem));
    };
    for (const DType type : {s.compute, DType::kFloat32}) {
      Tensor x = matrix(nullptr, s.compute, rows, s.k), y = matrix(nullptr, type, rows, s.n);
      need(forward_panel(packs ? y : y.slice_cols(0, panel_width(s.k, s.n)), x, type == DType::kFloat32));
      if (!backward) continue;
      x.dtype = type, y.dtype = s.compute;
      need(gradient_panel(packs ? x : x.slice_cols(0, panel_width(s.n, s.k)), y, type == DType::kFloat32));
    }
    if (rows >= max_rows) break;
  }
  if (packs) {
    const auto bytes = [&](int64_t k, int64_t n) {
      const PackedWeights& layout = matmuls_->packed_weights(k, n);
      return layout.known ? round_to_scratch(layout.bytes) : plain_bytes(k, n);
    };
    return most + std::max(bytes(s.k, s.n), backward ? bytes(s.n, s.k) : 0);
  }
  const int64_t forward = panel_width(s.k, s.n) * s.k, gradient = panel_width(s.n, s.k) * s.n;
  return most + round_to_scratch(size_t(backward ? std::max(forward, gradient) : forward) * sizeof(float));
}

// bfloat16 weights of the problem, packed where the layout is known, else as they lie.
const void* CpuBackend::quantized_operand(MatmulProblem& problem, const LinearWeight& weight, bool transposed) {
  const PackedWeights& layout = matmuls_->packed_weights(problem.k, problem.n);
  if (layout.known)
    return matmuls_->hold_weights(problem, weight.quantized[0].codes, [&](void* to) {
      pack_quantized(to, layout, weight.quantized, problem.k, problem.n, transposed, threads_);
    });
  problem.packed_weights = false;
  const int64_t rows = weight.master.rows, cols = weight.master.cols;
  auto* to = reinterpret_cast<BFloat16*>(matmuls_->room(problem, plain_bytes(rows, cols)));
  parallel_ranges(threads_, rows, cols, [&](int64_t first, int64_t last) {
    float values[kNf4Block];
    for (int64_t r = first; r < last; ++r)
      for (int64_t c = 0; c < cols; c += kNf4Block) {
        const int64_t count = std::min(kNf4Block, cols - c);
        nf4_rectangle(values, count, weight.quantized, r, 1, c, count);
        for (int64_t i = 0; i < count; ++i) to[r * cols + c + i] = BFloat16(values[i]);
      }
  });
  return to;
}

void CpuBackend::quantized_forward(Tensor y, Tensor x, const LinearWeight& weight, Tensor bias) {
  const int64_t n = weight.master.rows, k = weight.master.cols;
  if (x.dtype == DType::kBFloat16) {
    MatmulProblem problem = forward_problem(y, x, n, k, bool(bias));
    const void* operand = quantized_operand(problem, weight, false);
    matmuls_->run(problem, y.data, x.data, operand, bias ? bias.as<float>() : nullptr);
    return;
  }
  const int64_t width = panel_width(k, n);
  for (int64_t first = 0; first < n; first += width) {
    const int64_t count = std::min(width, n - first);
    const Tensor part = y.slice_cols(first, count);
    const MatmulProblem problem = forward_panel(part, x, bool(bias));
    auto* panel =
        reinterpret_cast<float*>(matmuls_->room(problem, round_to_scratch(size_t(width * k) * sizeof(float))));
    fill_panel(panel, weight, first, count, 0, k, threads_);
    matmuls_->run(problem, part.data, x.data, panel, bias ? bias.as<float>() + first : nullptr);
  }
}

void CpuBackend::quantized_backward_input(Tensor dx, Tensor dy, const LinearWeight& weight, bool accumulate) {
  const int64_t n = weight.master.rows, k = weight.master.cols;
  if (dy.dtype == DType::kBFloat16) {
    MatmulProblem problem = input_gradient_problem(dx, dy, n, k, accumulate);
    const void* operand = quantized_operand(problem, weight, true);
    matmuls_->run(problem, dx.data, dy.data, operand, nullptr);
    return;
  }
  const int64_t width = panel_width(n, k);
  for (int64_t first = 0; first < k; first += width) {
    const int64_t count = std::min(width, k - first);
    const Tensor part = dx.slice_cols(first, count);
    const MatmulProblem problem = gradient_panel(part, dy, accumulate);
    auto* panel =
        reinterpret_cast<float*>(matmuls_->room(problem, round_to_scratch(size_t(width * n) * sizeof(float))));
    fill_panel(panel, weight, 0, n, first, count, threads_);
    matmuls_->run(problem, part.data, dy.data, panel, nullptr);
  }
}

}  // namespace tunesmith::cpu
