// The attention block of a layer, forward and backward: q, k and v of the normalised stream, their norms and rotation,
// attention, and the output projection. The last layer queries for R rows only.
#include "model/decoder.h"

namespace tunesmith {

AttentionShape Decoder::attention_shape(size_t layer) const {
  return {spec_.heads,           spec_.kv_heads,          spec_.head_dim,
          spec_.attention_scale, spec_.attention_softcap, spec_.layer_windows[layer]};
}

// x [rows, heads · D], in place. Positions of long conversations reach into the table after the layer's.
void Decoder::rotate(size_t layer, Tensor x, int32_t heads, const int32_t* positions, bool inverse) {
  const int64_t table = spec_.layer_ropes[layer];
  if (table < 0) return;
  const int64_t tables = spec_.long_rope_threshold > 0 ? 2 : 1;
  backend_.rope(x, heads, spec_.head_dim,
                rope_tables_.slice_rows(table * spec_.max_positions, tables * spec_.max_positions), positions, inverse);
}

// From projected q or k to what attention reads. With a norm that lies in `room`, and x is kept for backward; without,
// x is rotated in place, and `again` it is so already.
Tensor Decoder::normalise_and_rotate(size_t layer, Tensor x, Tensor room, int32_t heads, const Norm& norm,
                                     const int32_t* positions, bool again) {
  if (norm) {
    const int32_t groups = spec_.qk_norm == QkNorm::kHead ? heads : 1;
    backend_.group_rmsnorm_forward(room, x, groups, norm.weight, norm_offset(), spec_.norm_epsilon);
    rotate(layer, room, heads, positions, false);
    return room;
  }
  if (!again) rotate(layer, x, heads, positions, false);
  return x;
}

// dx: from the gradient of what attention reads to that of the projection x, in place.
void Decoder::backward_normalise_and_rotate(size_t layer, Tensor dx, Tensor x, int32_t heads, const Norm& norm,
                                            const int32_t* positions) {
  rotate(layer, dx, heads, positions, true);
  if (!norm) return;
  const int32_t groups = spec_.qk_norm == QkNorm::kHead ? heads : 1;
  backend_.group_rmsnorm_backward(dx, norm.weight_grad, dx, x, groups, norm.weight, norm_offset(), spec_.norm_epsilon);
}

// q and k as attention reads them, of qkv [T, (Hq + 2 Hkv) D].
void Decoder::rotated_qk(size_t layer, Tensor qkv, Tensor& q, Tensor& k, bool again) {
  const LayerParameters& p = parameters_->layers[layer];
  const int64_t q_size = spec_.q_size(), kv_size = spec_.kv_size();
  q = qkv.slice_cols(0, q_size), k = qkv.slice_cols(q_size, kv_size);
  if (!p.q_norm) {  // both in one go
    if (!again)
      rotate(layer, qkv.slice_cols(0, q_size + kv_size), spec_.heads + spec_.kv_heads, batch_->positions, false);
    return;
  }
  const Tensor room = qk_.slice_rows(0, qkv.rows);
  q = normalise_and_rotate(layer, q, room.slice_cols(0, q_size), spec_.heads, p.q_norm, batch_->positions, again);
  k = normalise_and_rotate(layer, k, room.slice_cols(q_size, kv_size), spec_.kv_heads, p.k_norm, batch_->positions,
                           again);
}

// The same for q [R, Hq D] and k [T, Hkv D] of the last layer.
void Decoder::rotated_last_qk(size_t layer, Tensor& q, Tensor& k, bool again) {
  const LayerParameters& p = parameters_->layers[layer];
  const int64_t q_size = spec_.q_size(), kv_size = spec_.kv_size();
  Tensor q_room, k_room;
  if (p.q_norm) {
    q_room = qk_.slice_rows(0, q.rows).slice_cols(0, q_size);
    k_room = qk_.slice_rows(0, k.rows).slice_cols(q_size, kv_size);
  }
  k = normalise_and_rotate(layer, k, k_room, spec_.kv_heads, p.k_norm, batch_->positions, again);
  q = normalise_and_rotate(layer, q, q_room, spec_.heads, p.q_norm, batch_->supervised_positions, again);
}

// norm: what the block reads.
void Decoder::forward_attention(size_t layer, Tensor norm, bool again) {
  const LayerParameters& p = parameters_->layers[layer];
  LayerActivations& a = activations(layer);
  const int64_t t = tokens(), q_size = spec_.q_size(), kv_size = spec_.kv_size();
  const Tensor qkv = a.qkv.slice_rows(0, t), attended = a.attended.slice_rows(0, t), delta = delta_.slice_rows(0, t);
  forward_linear(qkv, norm, p.qkv);
  Tensor q, k, v = qkv.slice_cols(q_size + kv_size, kv_size);
  rotated_qk(layer, qkv, q, k, false);
  remember(layer, k, v);
  backend_.attention_forward(attended, a.lse.slice_rows(0, t), q, k, v, batch_->attention(), attention_shape(layer));
  if (again && spec_.parallel_residual) return;  // nothing reads the sum with the stream
  const Tensor projected = p.attention_post_norm ? a.attention_out.slice_rows(0, t) : delta;
  forward_linear(projected, attended, p.o);
  finish_block(layer, Block::kAttention, delta, projected, p.attention_post_norm);
}

void Decoder::forward_last_attention(size_t layer, Tensor norm) {
  const LayerParameters& p = parameters_->layers[layer];
  LayerActivations& a = activations(layer);
  const int64_t r = rows(), kv_size = spec_.kv_size();
  const Tensor kv = a.kv.slice_rows(0, tokens()), norm_rows = norm_rows_.slice_rows(0, r);
  const Tensor attended = a.attended.slice_rows(0, r), delta = delta_.slice_rows(0, r);
  Tensor q = a.q.slice_rows(0, r), k = kv.slice_cols(0, kv_size), v = kv.slice_cols(kv_size, kv_size);
  forward_linear(kv, norm, p.kv);
  backend_.gather_rows(norm_rows, norm, batch_->supervised_rows);
  forward_linear(q, norm_rows, p.q);
  rotated_last_qk(layer, q, k, false);
  remember(layer, k, v);
  backend_.attention_forward(attended, a.lse.slice_rows(0, r), q, k, v, batch_->supervised_attention(),
                             attention_shape(layer));
  const Tensor projected = p.attention_post_norm ? a.attention_out.slice_rows(0, r) : delta;
  forward_linear(projected, attended, p.o);
  finish_block(layer, Block::kAttention, delta, projected, p.attention_post_norm);
}

// From the gradient dx of the stream (dx_compute rounded, or empty) to dattended_: all of the block that reads dx.
void Decoder::backward_attention_output(size_t layer, Tensor dx, Tensor dx_compute, bool first) {
  LayerParameters& p = parameters_->layers[layer];
  const LayerActivations& a = activations(layer);
  const int64_t n = dx.rows;
  const Tensor projected = p.attention_post_norm ? a.attention_out.slice_rows(0, n) : Tensor{};
  const Tensor dy =
      backward_finish(layer, Block::kAttention, dx_compute ? dx_compute : dx, projected, p.attention_post_norm);
  backward_linear(dattended_.slice_rows(0, n), dy, a.attended.slice_rows(0, n), p.o, first);
}

void Decoder::backward_attention(size_t layer, bool first) {
  LayerParameters& p = parameters_->layers[layer];
  const LayerActivations& a = activations(layer);
  if (!p.o.input_gradient) return;
  const int64_t t = tokens(), q_size = spec_.q_size(), kv_size = spec_.kv_size();
  const Tensor dx = dx_.slice_rows(0, t), dx_compute = dx_compute_ ? dx_compute_.slice_rows(0, t) : Tensor{};
  const Tensor qkv = a.qkv.slice_rows(0, t), dqkv = dqkv_.slice_rows(0, t), dnorm = dnorm_.slice_rows(0, t);
  const Tensor x = layer_input(layer), statistics = a.attention_statistics.slice_cols(0, t);
  const Tensor dq = dqkv.slice_cols(0, q_size), dk = dqkv.slice_cols(q_size, kv_size);
  Tensor q, k;
  rotated_qk(layer, qkv, q, k, true);
  backend_.attention_backward(dq, dk, dqkv.slice_cols(q_size + kv_size, kv_size), dattended_.slice_rows(0, t),
                              a.attended.slice_rows(0, t), a.lse.slice_rows(0, t), q, k,
                              qkv.slice_cols(q_size + kv_size, kv_size), batch_->attention(), attention_shape(layer));
  if (p.q_norm) {
    backward_normalise_and_rotate(layer, dq, qkv.slice_cols(0, q_size), spec_.heads, p.q_norm, batch_->positions);
    backward_normalise_and_rotate(layer, dk, qkv.slice_cols(q_size, kv_size), spec_.kv_heads, p.k_norm,
                                  batch_->positions);
  } else {  // both in one go
    rotate(layer, dqkv.slice_cols(0, q_size + kv_size), spec_.heads + spec_.kv_heads, batch_->positions, true);
  }
  const Tensor norm = apply_norm(norm_.slice_rows(0, t), x, statistics, p.attention_norm);
  backward_linear(dnorm, dqkv, norm, p.qkv, first);
  if (!p.qkv.input_gradient) return;
  backward_norm(dx, layer > 0 ? dx_compute : Tensor{}, dnorm, x, statistics, p.attention_norm);
}

// From the gradient of R rows to that of all T: the other rows have had no gradient until here, and get theirs through
// their keys and values alone.
void Decoder::backward_last_attention(size_t layer, bool first) {
  LayerParameters& p = parameters_->layers[layer];
  const LayerActivations& a = activations(layer);
  if (!p.o.input_gradient) return;
  const int64_t t = tokens(), r = rows(), kv_size = spec_.kv_size();
  const Tensor kv = a.kv.slice_rows(0, t), dkv = dkv_.slice_rows(0, t), dnorm = dnorm_.slice_rows(0, t);
  // Contiguous, as matmuls like their operands: dq is laid into the unused dqkv_.
  const Tensor dq = matrix(dqkv_.data, compute_, r, spec_.q_size()), dk = dkv.slice_cols(0, kv_size);
  const Tensor norm_rows = norm_rows_.slice_rows(0, r), dnorm_rows = dnorm_rows_.slice_rows(0, r);
  const Tensor x = layer_input(layer), statistics = a.attention_statistics.slice_cols(0, t);
  Tensor q = a.q.slice_rows(0, r), k = kv.slice_cols(0, kv_size);
  const Tensor projected_q = q, projected_k = k;
  rotated_last_qk(layer, q, k, true);
  backend_.attention_backward(dq, dk, dkv.slice_cols(kv_size, kv_size), dattended_.slice_rows(0, r),
                              a.attended.slice_rows(0, r), a.lse.slice_rows(0, r), q, k,
                              kv.slice_cols(kv_size, kv_size), batch_->supervised_attention(), attention_shape(layer));
  backward_normalise_and_rotate(layer, dq, projected_q, spec_.heads, p.q_norm, batch_->supervised_positions);
  backward_normalise_and_rotate(layer, dk, projected_k, spec_.kv_heads, p.k_norm, batch_->positions);

  const Tensor norm = apply_norm(norm_.slice_rows(0, t), x, statistics, p.attention_norm);
  backend_.gather_rows(norm_rows, norm, batch_->supervised_rows);
  backward_linear(dnorm, dkv, norm, p.kv, first);
  backward_linear(dnorm_rows, dq, norm_rows, p.q, first);
  if (!p.q.input_gradient) return;
  backend_.scatter_add_rows(dnorm, dnorm_rows, batch_->supervised_rows, batch_->rows);

  const Tensor dx = dx_.slice_rows(0, t), dx_compute = dx_compute_ ? dx_compute_.slice_rows(0, t) : Tensor{};
  backend_.zero(dx.data, size_t(dx.size()) * size_of(wide_));
  backend_.scatter_add_rows(dx, dx_rows_.slice_rows(0, r), batch_->supervised_rows, batch_->rows);
  backward_norm(dx, layer > 0 ? dx_compute : Tensor{}, dnorm, x, statistics, p.attention_norm);
}

}  // namespace tunesmith
