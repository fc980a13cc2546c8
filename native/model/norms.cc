// Where the residual stream enters and leaves a block: its norms, of either kind and in either place, and the scale of
// what it adds.
#include "model/decoder.h"

namespace tunesmith {

Tensor Decoder::stream(size_t layer, int64_t rows) {
  return (spec_.parallel_residual ? stream_ : activations(layer).middle).slice_rows(0, rows);
}

// out = residual + delta (delta may be empty: the input is residual then), normalised into y. Returns what the block's
// matmuls read: y, or without a norm the stream itself, as it is or rounded into y.
Tensor Decoder::forward_norm(Tensor out, Tensor y, Tensor statistics, Tensor residual, Tensor delta, const Norm& norm) {
  if (norm) {
    if (spec_.norm == NormKind::kLayer)
      backend_.layernorm_forward(out, y, statistics, residual, delta, norm.weight, norm.bias, spec_.norm_epsilon);
    else
      backend_.rmsnorm_forward(out, y, statistics, residual, delta, norm.weight, norm_offset(), spec_.norm_epsilon);
    return y;
  }
  if (delta) backend_.residual_add(out, compute_ != wide_ ? y : Tensor{}, residual, delta);
  return delta && compute_ != wide_ ? y : apply_norm(y, delta ? out : residual, statistics, norm);
}

// The same again from the saved stream x.
Tensor Decoder::apply_norm(Tensor y, Tensor x, Tensor statistics, const Norm& norm) {
  if (!norm) {
    if (compute_ == wide_) return x;
    backend_.cast(y, x);
  } else if (spec_.norm == NormKind::kLayer) {
    backend_.layernorm_apply(y, x, statistics, norm.weight, norm.bias);
  } else {
    backend_.rmsnorm_apply(y, x, statistics, norm.weight, norm_offset());
  }
  return y;
}

// dx += the gradient of the stream through the norm; dx_compute, unless empty, is dx rounded.
void Decoder::backward_norm(Tensor dx, Tensor dx_compute, Tensor dy, Tensor x, Tensor statistics, const Norm& norm) {
  if (!norm)
    backend_.residual_add(dx, dx_compute, dx, dy);
  else if (spec_.norm == NormKind::kLayer)
    backend_.layernorm_backward(dx, dx_compute, norm.weight_grad, norm.bias_grad, dy, x, statistics, norm.weight);
  else
    backend_.rmsnorm_backward(dx, dx_compute, norm.weight_grad, dy, x, statistics, norm.weight, norm_offset());
}

// delta: what a block adds to the stream, of its last projection, which is delta itself where no norm stands behind it.
void Decoder::finish_block(size_t layer, Block block, Tensor delta, Tensor projected, const Norm& norm) {
  if (norm) backend_.group_rmsnorm_forward(delta, projected, 1, norm.weight, norm_offset(), spec_.norm_epsilon);
  if (spec_.residual_scale != 1) backend_.scale_columns(delta, delta, {}, spec_.residual_scale, 0, {});
  if (drops(residual_dropout(layer))) backend_.dropout(delta, delta, residual_mask(layer, block), false);
}

// From dy, the gradient of what the block adds, to that of its last projection; dy stays as it is.
Tensor Decoder::backward_finish(size_t layer, Block block, Tensor dy, Tensor projected, const Norm& norm) {
  const Tensor room = delta_.slice_rows(0, dy.rows);
  if (drops(residual_dropout(layer))) {
    backend_.dropout(room, dy, residual_mask(layer, block), false);
    dy = room;
  }
  if (spec_.residual_scale != 1) {
    backend_.scale_columns(room, dy, {}, spec_.residual_scale, 0, {});
    dy = room;
  }
  if (!norm) return dy;
  backend_.group_rmsnorm_backward(room, norm.weight_grad, dy, projected, 1, norm.weight, norm_offset(),
                                  spec_.norm_epsilon);
  return room;
}

}  // namespace tunesmith
