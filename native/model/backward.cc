// Backward over the layers, by hand, in the reverse order of forward.cc. dx is the gradient of the residual stream;
// dx_compute is the same rounded to what matmuls read, and is dx itself where compute is wide.
#include "model/decoder.h"

namespace tunesmith {

// x and dy of y = x · Wᵀ + b are there: gradients of what trains of W and b, and dx = dy · W where something before it
// trains.
void Decoder::backward_linear(Tensor dx, Tensor dy, Tensor x, Linear& linear, bool first) {
  for (const TrainedRows& rows : linear.trained)
    backend_.linear_backward_weight(rows.grad, dy.slice_cols(rows.first, rows.count), x, !first);
  for (const TrainedRows& rows : linear.trained_bias)
    backend_.bias_backward(rows.grad, dy.slice_cols(rows.first, rows.count));
  if (linear.adapter) return backward_adapted(dx, dy, x, linear);
  if (linear.input_gradient) backend_.linear_backward_input(dx, dy, linear.weight, false);
}

void Decoder::backward(bool first, const std::atomic<bool>& cancel) {
  const int64_t lowest = parameters_->lowest_block;
  if (lowest > final_norm_block(spec_.layers)) return;
  const Tensor dx_rows = dx_rows_.slice_rows(0, rows());
  const Tensor dx_rows_compute = dx_rows_compute_ ? dx_rows_compute_.slice_rows(0, rows()) : Tensor{};
  backend_.zero(dx_rows.data, size_t(dx_rows.size()) * size_of(wide_));
  backend_.rmsnorm_backward(dx_rows, dx_rows_compute, parameters_->final_norm_grad, dnorm_rows_.slice_rows(0, rows()),
                            output_.slice_rows(0, rows()), output_rstd_.slice_cols(0, rows()), parameters_->final_norm);
  const Tensor dx = dx_.slice_rows(0, tokens());
  const Tensor dx_compute = dx_compute_ ? dx_compute_.slice_rows(0, tokens()) : Tensor{};
  for (size_t layer = size_t(spec_.layers); layer-- > 0;) {
    if (lowest > mlp_block(int64_t(layer))) return;
    check_cancelled(cancel);
    const bool attention = lowest <= attention_block(int64_t(layer));
    // The last layer's activations are still there: nothing has run since.
    if (options_.recompute && !is_last(layer)) forward_layer(layer, true);
    if (is_last(layer)) {
      backward_mlp(layer, dx_rows, dx_rows_compute, first);
      if (attention) backward_last_attention(layer, first);
    } else {
      backward_mlp(layer, dx, dx_compute, first);
      if (attention) backward_attention(layer, first);
    }
  }
  if (parameters_->embedding_grad) backend_.embedding_backward(parameters_->embedding_grad, dx, batch_->tokens);
}

void Decoder::backward_mlp(size_t layer, Tensor dx, Tensor dx_compute, bool first) {
  LayerParameters& p = parameters_->layers[layer];
  const LayerActivations& a = activations(layer);
  const Tensor act = act_.slice_rows(0, dx.rows), dact = dact_.slice_rows(0, dx.rows);
  const Tensor norm = norm_.slice_rows(0, dx.rows), dnorm = dnorm_.slice_rows(0, dx.rows);
  const Tensor gate_up = a.gate_up.slice_rows(0, dx.rows), middle = a.middle.slice_rows(0, dx.rows);
  const Tensor rstd = a.mlp_rstd.slice_cols(0, dx.rows);
  backend_.gated_forward(act, gate_up, Activation::kSilu);
  backward_linear(dact, dx_compute ? dx_compute : dx, act, p.down, first);
  if (!p.down.input_gradient) return;
  backend_.gated_backward(gate_up, dact, gate_up, Activation::kSilu);
  backend_.rmsnorm_apply(norm, middle, rstd, p.mlp_norm);
  backward_linear(dnorm, gate_up, norm, p.gate_up, first);
  if (!p.gate_up.input_gradient) return;
  backend_.rmsnorm_backward(dx, dx_compute, p.mlp_norm_grad, dnorm, middle, rstd, p.mlp_norm);
}

void Decoder::backward_attention(size_t layer, bool first) {
  LayerParameters& p = parameters_->layers[layer];
  const LayerActivations& a = activations(layer);
  const int64_t t = tokens(), q_size = spec_.q_size(), kv_size = spec_.kv_size();
  const Tensor dx = dx_.slice_rows(0, t), dx_compute = dx_compute_ ? dx_compute_.slice_rows(0, t) : Tensor{};
  const Tensor attended = a.attended.slice_rows(0, t), dattended = dattended_.slice_rows(0, t);
  const Tensor qkv = a.qkv.slice_rows(0, t), dqkv = dqkv_.slice_rows(0, t);
  const Tensor norm = norm_.slice_rows(0, t), dnorm = dnorm_.slice_rows(0, t);
  const Tensor x = layer_input(layer), rstd = a.attention_rstd.slice_cols(0, t);
  const auto part = [&](const Tensor& whole, int index) {
    return index == 0 ? whole.slice_cols(0, q_size) : whole.slice_cols(q_size + (index - 1) * kv_size, kv_size);
  };
  backward_linear(dattended, dx_compute ? dx_compute : dx, attended, p.o, first);
  if (!p.o.input_gradient) return;
  backend_.attention_backward(part(dqkv, 0), part(dqkv, 1), part(dqkv, 2), dattended, attended, a.lse.slice_rows(0, t),
                              part(qkv, 0), part(qkv, 1), part(qkv, 2), batch_->attention(), attention_shape_);
  backend_.rope(dqkv.slice_cols(0, q_size + kv_size), spec_.heads + spec_.kv_heads, spec_.head_dim, rope_table_,
                batch_->positions, true);
  backend_.rmsnorm_apply(norm, x, rstd, p.attention_norm);
  backward_linear(dnorm, dqkv, norm, p.qkv, first);
  if (!p.qkv.input_gradient) return;
  backend_.rmsnorm_backward(dx, layer > 0 ? dx_compute : Tensor{}, p.attention_norm_grad, dnorm, x, rstd,
                            p.attention_norm);
}

// From the gradient of R rows to that of all T: the other rows have had no gradient until here, and get theirs through
// their keys and values alone.
void Decoder::backward_last_attention(size_t layer, bool first) {
  LayerParameters& p = parameters_->layers[layer];
  const LayerActivations& a = activations(layer);
  const int64_t t = tokens(), r = rows(), kv_size = spec_.kv_size();
  const Tensor dx_rows = dx_rows_.slice_rows(0, r);
  const Tensor dx_rows_compute = dx_rows_compute_ ? dx_rows_compute_.slice_rows(0, r) : dx_rows;
  const Tensor attended = a.attended.slice_rows(0, r), dattended = dattended_.slice_rows(0, r);
  const Tensor q = a.q.slice_rows(0, r), kv = a.kv.slice_rows(0, t);
  // Contiguous, as matmuls like their operands: dq is laid into the unused dqkv_.
  const Tensor dq = matrix(dqkv_.data, compute_, r, spec_.q_size()), dkv = dkv_.slice_rows(0, t);
  const Tensor norm = norm_.slice_rows(0, t), dnorm = dnorm_.slice_rows(0, t);
  const Tensor norm_rows = norm_rows_.slice_rows(0, r), dnorm_rows = dnorm_rows_.slice_rows(0, r);
  const Tensor x = layer_input(layer), rstd = a.attention_rstd.slice_cols(0, t);

  backward_linear(dattended, dx_rows_compute, attended, p.o, first);
  if (!p.o.input_gradient) return;
  backend_.attention_backward(dq, dkv.slice_cols(0, kv_size), dkv.slice_cols(kv_size, kv_size), dattended, attended,
                              a.lse.slice_rows(0, r), q, kv.slice_cols(0, kv_size), kv.slice_cols(kv_size, kv_size),
                              batch_->supervised_attention(), attention_shape_);
  backend_.rope(dq, spec_.heads, spec_.head_dim, rope_table_, batch_->supervised_positions, true);
  backend_.rope(dkv.slice_cols(0, kv_size), spec_.kv_heads, spec_.head_dim, rope_table_, batch_->positions, true);

  backend_.rmsnorm_apply(norm, x, rstd, p.attention_norm);
  backend_.gather_rows(norm_rows, norm, batch_->supervised_rows);
  backward_linear(dnorm, dkv, norm, p.kv, first);
  backward_linear(dnorm_rows, dq, norm_rows, p.q, first);
  if (!p.q.input_gradient) return;
  backend_.scatter_add_rows(dnorm, dnorm_rows, batch_->supervised_rows, batch_->rows);

  const Tensor dx = dx_.slice_rows(0, t), dx_compute = dx_compute_ ? dx_compute_.slice_rows(0, t) : Tensor{};
  backend_.zero(dx.data, size_t(dx.size()) * size_of(wide_));
  backend_.scatter_add_rows(dx, dx_rows, batch_->supervised_rows, batch_->rows);
  backend_.rmsnorm_backward(dx, layer > 0 ? dx_compute : Tensor{}, p.attention_norm_grad, dnorm, x, rstd,
                            p.attention_norm);
}

}  // namespace tunesmith
