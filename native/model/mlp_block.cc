// The MLP block of a layer, forward and backward: down(act(gate) · up), or down(act(up)) without gates.
#include "model/decoder.h"

namespace tunesmith {

// [rows, H] wide: what the block's norm reads.
Tensor Decoder::mlp_input(size_t layer, int64_t rows) {
  const bool whole = spec_.parallel_residual && !is_last(layer);
  return (whole ? layer_input(layer) : activations(layer).middle).slice_rows(0, rows);
}

// residual: the stream before the attention's delta, which joins it here.
void Decoder::forward_mlp(size_t layer, int64_t rows, Tensor residual, bool again) {
  const LayerParameters& p = parameters_->layers[layer];
  LayerActivations& a = activations(layer);
  const Tensor norm = norm_.slice_rows(0, rows), delta = delta_.slice_rows(0, rows), act = act_.slice_rows(0, rows);
  const Tensor gate_up = a.gate_up.slice_rows(0, rows), statistics = a.mlp_statistics.slice_cols(0, rows);
  Tensor in;
  if (spec_.parallel_residual) {
    in = forward_norm({}, norm, statistics, residual, {}, p.mlp_norm);
    if (!again) backend_.residual_add(stream(layer, rows), {}, residual, delta);
  } else {
    in = forward_norm(stream(layer, rows), norm, statistics, residual, delta, p.mlp_norm);
  }
  forward_linear(gate_up, in, p.gate_up);
  if (again && !p.mlp_post_norm) return;
  backend_.activation_forward(act, gate_up, spec_.activation);
  const Tensor projected = p.mlp_post_norm ? a.mlp_out.slice_rows(0, rows) : delta;
  forward_linear(projected, act, p.down);
  if (!again) finish_block(layer, Block::kMlp, delta, projected, p.mlp_post_norm);
}

void Decoder::backward_mlp(size_t layer, Tensor dx, Tensor dx_compute, bool first) {
  LayerParameters& p = parameters_->layers[layer];
  const LayerActivations& a = activations(layer);
  const int64_t n = dx.rows;
  const Tensor act = act_.slice_rows(0, n), dact = dact_.slice_rows(0, n), dnorm = dnorm_.slice_rows(0, n);
  const Tensor gate_up = a.gate_up.slice_rows(0, n), x = mlp_input(layer, n);
  const Tensor statistics = a.mlp_statistics.slice_cols(0, n);
  const Tensor projected = p.mlp_post_norm ? a.mlp_out.slice_rows(0, n) : Tensor{};
  const Tensor dy = backward_finish(layer, Block::kMlp, dx_compute ? dx_compute : dx, projected, p.mlp_post_norm);
  backend_.activation_forward(act, gate_up, spec_.activation);
  backward_linear(dact, dy, act, p.down, first);
  if (!p.down.input_gradient) return;
  backend_.activation_backward(gate_up, dact, gate_up, spec_.activation);
  const Tensor norm = apply_norm(norm_.slice_rows(0, n), x, statistics, p.mlp_norm);
  backward_linear(dnorm, gate_up, norm, p.gate_up, first);
  if (!p.gate_up.input_gradient) return;
  backward_norm(dx, dx_compute, dnorm, x, statistics, p.mlp_norm);
}

}  // namespace tunesmith
