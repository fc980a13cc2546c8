// Matmuls with low-rank adapters, forward and backward. See adapters.h for the mathematics. h = x · Aᵀ is computed anew
// in backward: it costs less than keeping it for every projection of every layer.
#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/rng.h"
#include "model/decoder.h"

namespace tunesmith {

void Decoder::reserve_adapted(Arena& arena) {
  const auto kind = MemoryKind::kScratch;
  int64_t inputs = 0, outputs = 0, ranks = 0;
  for (const Linear* linear : parameters_->linears()) {
    if (!linear->adapter) continue;
    const Tensor& weight = linear->weight.master;
    const LinearAdapter& adapter = *linear->adapter;
    inputs = std::max(inputs, weight.cols);
    ranks = std::max(ranks, adapter.a.master.rows);
    if (options_.adapters.dora) outputs = std::max(outputs, weight.rows);
    const auto need = [&](int64_t n, int64_t k) {
      const size_t bytes = backend_.linear_scratch_bytes(max_tokens_, {n, k, compute_, parameters_->adapter_use()});
      backend_scratch_bytes_ = std::max(backend_scratch_bytes_, bytes);
    };
    need(adapter.a.master.rows, weight.cols);
    for (const TrainedRows& rows : adapter.trained_a) need(rows.count, weight.cols);
    for (const AdapterSlice& slice : adapter.slices) {
      outputs = std::max(outputs, slice.count);
      need(slice.count, slice.b.master.cols);
    }
  }
  if (options_.training) arena.reserve(kind, adapter_in_, compute_, max_tokens_, inputs);
  arena.reserve(kind, adapter_out_, compute_, max_tokens_, outputs);
  arena.reserve(kind, down_, compute_, max_tokens_, ranks);
  arena.reserve(kind, down_scaled_, compute_, max_tokens_, ranks);
  if (options_.training) arena.reserve(kind, down_gradient_, compute_, max_tokens_, ranks);
}

void Decoder::initialize_adapters(uint64_t seed) {
  const auto upload = [&](const Tensor& to, const std::vector<double>& values) {
    if (wide_ == DType::kFloat64) {
      backend_.upload(to.data, values.data(), values.size() * sizeof(double));
    } else {
      const std::vector<float> narrow(values.begin(), values.end());
      backend_.upload(to.data, narrow.data(), narrow.size() * sizeof(float));
    }
  };
  for (const AdapterModule& module : parameters_->adapters().modules) {
    const Parameter& a = parameters_->find(module.name + ".lora_a");
    const Parameter& b = parameters_->find(module.name + ".lora_b");
    // torch.nn.init.kaiming_uniform_ with a = √5: bound √(6 / ((1 + 5) K)).
    const double bound = 1 / std::sqrt(double(a.value.cols));
    const uint64_t stream = hash_name(a.name);
    std::vector<double> values(size_t(a.value.size()));
    for (size_t i = 0; i < values.size(); i++) values[i] = bound * (2 * philox_uniform(seed, stream, i) - 1);
    upload(a.value, values);
    backend_.zero(b.value.data, size_t(b.value.size()) * size_of(wide_));
  }
  if (!options_.adapters.dora) return;
  for (const Linear* linear : parameters_->linears()) {
    if (!linear->adapter) continue;
    for (const AdapterSlice& slice : linear->adapter->slices)
      backend_.lora_norm(slice.magnitude, {}, {}, linear->weight, slice.first, slice.a, slice.b.master, slice.scale);
  }
}

// After loading and after every step: layouts of A and B, and DoRA's norms.
void Decoder::prepare_adapters() {
  if (merged_) return;
  for (const Linear* linear : parameters_->linears()) {
    if (!linear->adapter) continue;
    const LinearAdapter& adapter = *linear->adapter;
    backend_.linear_prepare(adapter.a, parameters_->adapter_use());
    if (options_.adapters.dora) {
      const size_t columns = size_t(adapter.gain.cols);
      if (wide_ == DType::kFloat64)
        backend_.upload(adapter.gain.data, std::vector<double>(columns, 1).data(), columns * sizeof(double));
      else
        backend_.upload(adapter.gain.data, std::vector<float>(columns, 1).data(), columns * sizeof(float));
    }
    for (const AdapterSlice& slice : adapter.slices) {
      backend_.linear_prepare(slice.b, parameters_->adapter_use());
      if (!options_.adapters.dora) continue;
      backend_.lora_norm(adapter.norm.slice_cols(slice.first, slice.count),
                         adapter.gain.slice_cols(slice.first, slice.count), slice.magnitude, linear->weight,
                         slice.first, slice.a, slice.b.master, slice.scale);
    }
  }
}

void Decoder::merge_adapters() {
  if (options_.training) throw CodedError("ERR_INVALID_ARGUMENT", "adapters that train cannot be merged");
  if (merged_ || parameters_->adapters().modules.empty())
    throw CodedError("ERR_INVALID_ARGUMENT", "there is no adapter to merge");
  if (options_.quantization != Quantization::kNone && !options_.dequantized)
    throw CodedError("ERR_INVALID_ARGUMENT",
                     "adapters cannot be merged into quantised weights: read those into others");
  for (const Linear* linear : parameters_->linears()) {
    if (!linear->adapter) continue;
    for (const AdapterSlice& slice : linear->adapter->slices)
      backend_.lora_merge(
          linear->weight.master.slice_rows(slice.first, slice.count), slice.a, slice.b.master, slice.scale,
          options_.adapters.dora ? linear->adapter->gain.slice_cols(slice.first, slice.count) : Tensor{});
  }
  merged_ = true;
  prepare_weights();
}

DropoutMask Decoder::dropout_mask(const LinearAdapter& adapter) const {
  return {options_.adapters.dropout, random_key(adapter.input),
          adapter.supervised ? batch_->supervised_q_positions : batch_->q_positions,
          adapter.supervised ? batch_->supervised_numbers : batch_->numbers};
}

// drop(x), which is x itself where nothing is dropped.
Tensor Decoder::adapter_input(Tensor x, const LinearAdapter& adapter) {
  if (options_.adapters.dropout == 0 || !random_) return x;
  const Tensor in = matrix(adapter_in_.data, compute_, x.rows, x.cols);
  backend_.dropout(in, x, dropout_mask(adapter), false);
  return in;
}

// h = x · Aᵀ of all slices into down_, and s · h of each, contiguous, into down_scaled_.
void Decoder::project_down(Tensor x, const LinearAdapter& adapter) {
  const Tensor down = matrix(down_.data, compute_, x.rows, adapter.a.master.rows);
  backend_.linear_forward(down, x, adapter.a, {});
  for (const AdapterSlice& slice : adapter.slices)
    backend_.scale_columns(scaled_down(x.rows, slice), down.slice_cols(slice.rank_first, slice.b.master.cols), {},
                           slice.scale, 0, {});
}

// s · h of one slice: [rows, r].
Tensor Decoder::scaled_down(int64_t rows, const AdapterSlice& slice) const {
  char* const data = static_cast<char*>(down_scaled_.data) + rows * slice.rank_first * int64_t(size_of(compute_));
  return matrix(data, compute_, rows, slice.b.master.cols);
}

void Decoder::forward_adapted(Tensor y, Tensor x, const Linear& linear) {
  const LinearAdapter& adapter = *linear.adapter;
  const bool dora = options_.adapters.dora;
  const Tensor in = adapter_input(x, adapter);
  const bool dropped = in.data != x.data;
  backend_.linear_forward(y, x, linear.weight, dora && !dropped ? Tensor{} : linear.bias);
  if (dora && dropped) {
    const Tensor base = matrix(adapter_out_.data, compute_, y.rows, y.cols);
    backend_.linear_forward(base, in, linear.weight, {});
    backend_.add_scaled(y, base, adapter.gain, 1, -1);
  }
  project_down(in, adapter);
  for (const AdapterSlice& slice : adapter.slices) {
    const Tensor update = matrix(adapter_out_.data, compute_, y.rows, slice.count);
    backend_.linear_forward(update, scaled_down(y.rows, slice), slice.b, {});
    backend_.add_scaled(y.slice_cols(slice.first, slice.count), update,
                        dora && dropped ? adapter.gain.slice_cols(slice.first, slice.count) : Tensor{}, 1, 0);
  }
  if (dora && !dropped) backend_.scale_columns(y, y, adapter.gain, 1, 0, linear.bias);
}

// Gradient of DoRA's magnitudes: Σ_t dy · u / norm, with u made again.
void Decoder::backward_magnitudes(Tensor dy, Tensor in, const Linear& linear) {
  const LinearAdapter& adapter = *linear.adapter;
  const auto part = [](const Tensor& whole, const AdapterSlice& slice) {
    return whole.slice_cols(slice.first, slice.count);
  };
  const Tensor base = matrix(adapter_out_.data, compute_, dy.rows, dy.cols);
  backend_.linear_forward(base, in, linear.weight, {});
  for (const AdapterSlice& slice : adapter.slices)
    if (slice.magnitude_grad)
      backend_.column_dots(slice.magnitude_grad, part(dy, slice), part(base, slice), part(adapter.norm, slice));
  for (const AdapterSlice& slice : adapter.slices) {
    if (!slice.magnitude_grad) continue;
    const Tensor update = matrix(adapter_out_.data, compute_, dy.rows, slice.count);
    backend_.linear_forward(update, scaled_down(dy.rows, slice), slice.b, {});
    backend_.column_dots(slice.magnitude_grad, part(dy, slice), update, part(adapter.norm, slice));
  }
}

// Gradients of the adapters, and dx through them and through W. Those of adapters always add: they start from zero.
void Decoder::backward_adapted(Tensor dx, Tensor dy, Tensor x, Linear& linear) {
  const LinearAdapter& adapter = *linear.adapter;
  const bool dora = options_.adapters.dora;
  const Tensor in = adapter_input(x, adapter);
  const bool dropped = in.data != x.data;
  const Tensor down_gradient = matrix(down_gradient_.data, compute_, dy.rows, adapter.a.master.rows);
  project_down(in, adapter);
  if (dora) backward_magnitudes(dy, in, linear);
  for (const AdapterSlice& slice : adapter.slices) {
    Tensor dy_slice = dy;
    if (dora || slice.count < dy.cols) {  // contiguous, as matmuls like their operands
      dy_slice = matrix(adapter_out_.data, compute_, dy.rows, slice.count);
      backend_.scale_columns(dy_slice, dy.slice_cols(slice.first, slice.count),
                             dora ? adapter.gain.slice_cols(slice.first, slice.count) : Tensor{}, 1, 0, {});
    }
    const Tensor scaled = scaled_down(dy.rows, slice);
    if (slice.b_grad) backend_.linear_backward_weight(slice.b_grad, dy_slice, scaled, true);
    // s · h has been read: its place takes dy · B.
    backend_.linear_backward_input(scaled, dy_slice, slice.b, false);
    backend_.scale_columns(down_gradient.slice_cols(slice.rank_first, scaled.cols), scaled, {}, slice.scale, 0, {});
  }
  for (const TrainedRows& rows : adapter.trained_a)
    backend_.linear_backward_weight(rows.grad, down_gradient.slice_cols(rows.first, rows.count), in, true);
  if (!linear.input_gradient) return;

  Tensor dy_base = dy;
  const Tensor dy_scaled = matrix(adapter_out_.data, compute_, dy.rows, dy.cols);
  if (dora && !dropped) backend_.scale_columns(dy_base = dy_scaled, dy, adapter.gain, 1, 0, {});
  backend_.linear_backward_input(dx, dy_base, linear.weight, false);
  const Tensor dx_in = matrix(adapter_in_.data, compute_, x.rows, x.cols);
  backend_.linear_backward_input(dx_in, down_gradient, adapter.a, false);
  if (!dropped) return backend_.add_scaled(dx, dx_in, {}, 1, 0);
  const DropoutMask mask = dropout_mask(adapter);
  backend_.dropout(dx, dx_in, mask, true);
  if (!dora) return;
  backend_.scale_columns(dy_scaled, dy, adapter.gain, 1, -1, {});
  backend_.linear_backward_input(dx_in, dy_scaled, linear.weight, false);
  backend_.dropout(dx, dx_in, mask, true);
}

}  // namespace tunesmith
