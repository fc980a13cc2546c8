// Forward over the layers. See decoder.h for the notation.
#include "model/decoder.h"

namespace tunesmith {

Tensor Decoder::layer_input(size_t layer) {
  return (inputs_.empty() ? activations(layer).x : inputs_[slot_of(layer)]).slice_rows(0, tokens());
}

void Decoder::forward(const std::atomic<bool>& cancel) {
  backend_.embedding_forward(layer_input(0), parameters_->embedding, batch_->tokens);
  for (size_t layer = 0; layer < size_t(spec_.layers); layer++) {
    check_cancelled(cancel);
    forward_layer(layer, false);
  }
  const LayerActivations& last = activations(size_t(spec_.layers) - 1);
  backend_.rmsnorm_forward(output_.slice_rows(0, rows()), hidden_.slice_rows(0, rows()),
                           output_rstd_.slice_cols(0, rows()), last.middle.slice_rows(0, rows()),
                           delta_.slice_rows(0, rows()), parameters_->final_norm, spec_.norm_epsilon);
}

// Every projection of the layers and the head goes through here and through backward_linear().
void Decoder::forward_linear(Tensor y, Tensor x, const Linear& linear) {
  if (linear.adapter && !merged_) return forward_adapted(y, x, linear);
  backend_.linear_forward(y, x, linear.weight, linear.bias);
}

// `again`: the layer's input is there already and only what its backward reads is wanted.
void Decoder::forward_layer(size_t layer, bool again) {
  const LayerParameters& p = parameters_->layers[layer];
  LayerActivations& a = activations(layer);
  const Tensor x = layer_input(layer), norm = norm_.slice_rows(0, tokens());
  const bool has_input = again || layer == 0;
  const Tensor residual = has_input ? x : activations(layer - 1).middle.slice_rows(0, tokens());
  const Tensor delta = has_input ? Tensor{} : delta_.slice_rows(0, tokens());
  backend_.rmsnorm_forward(x, norm, a.attention_rstd.slice_cols(0, tokens()), residual, delta, p.attention_norm,
                           spec_.norm_epsilon);
  if (!is_last(layer)) {
    forward_attention(layer, norm);
    forward_mlp(layer, tokens(), x, again);
  } else {
    forward_last_attention(layer, norm);
    const Tensor middle = a.middle.slice_rows(0, rows());
    backend_.gather_rows(middle, x, batch_->supervised_rows);
    forward_mlp(layer, rows(), middle, again);
  }
}

void Decoder::forward_attention(size_t layer, Tensor norm) {
  const LayerParameters& p = parameters_->layers[layer];
  LayerActivations& a = activations(layer);
  const int64_t q_size = spec_.q_size(), kv_size = spec_.kv_size();
  const Tensor qkv = a.qkv.slice_rows(0, tokens()), attended = a.attended.slice_rows(0, tokens());
  forward_linear(qkv, norm, p.qkv);
  backend_.rope(qkv.slice_cols(0, q_size + kv_size), spec_.heads + spec_.kv_heads, spec_.head_dim, rope_table_,
                batch_->positions, false);
  const Tensor q = qkv.slice_cols(0, q_size);
  Tensor k = qkv.slice_cols(q_size, kv_size), v = qkv.slice_cols(q_size + kv_size, kv_size);
  remember(layer, k, v);
  backend_.attention_forward(attended, a.lse.slice_rows(0, tokens()), q, k, v, batch_->attention(), attention_shape_);
  forward_linear(delta_.slice_rows(0, tokens()), attended, p.o);
}

void Decoder::forward_last_attention(size_t layer, Tensor norm) {
  const LayerParameters& p = parameters_->layers[layer];
  LayerActivations& a = activations(layer);
  const int64_t kv_size = spec_.kv_size();
  const Tensor kv = a.kv.slice_rows(0, tokens()), q = a.q.slice_rows(0, rows());
  const Tensor attended = a.attended.slice_rows(0, rows()), norm_rows = norm_rows_.slice_rows(0, rows());
  forward_linear(kv, norm, p.kv);
  backend_.gather_rows(norm_rows, norm, batch_->supervised_rows);
  forward_linear(q, norm_rows, p.q);
  Tensor k = kv.slice_cols(0, kv_size), v = kv.slice_cols(kv_size, kv_size);
  backend_.rope(k, spec_.kv_heads, spec_.head_dim, rope_table_, batch_->positions, false);
  backend_.rope(q, spec_.heads, spec_.head_dim, rope_table_, batch_->supervised_positions, false);
  remember(layer, k, v);
  backend_.attention_forward(attended, a.lse.slice_rows(0, rows()), q, k, v, batch_->supervised_attention(),
                             attention_shape_);
  forward_linear(delta_.slice_rows(0, rows()), attended, p.o);
}

// residual: the stream before the attention's delta, which joins it here.
void Decoder::forward_mlp(size_t layer, int64_t rows, Tensor residual, bool again) {
  const LayerParameters& p = parameters_->layers[layer];
  LayerActivations& a = activations(layer);
  const Tensor norm = norm_.slice_rows(0, rows), delta = delta_.slice_rows(0, rows), act = act_.slice_rows(0, rows);
  const Tensor gate_up = a.gate_up.slice_rows(0, rows);
  backend_.rmsnorm_forward(a.middle.slice_rows(0, rows), norm, a.mlp_rstd.slice_cols(0, rows), residual, delta,
                           p.mlp_norm, spec_.norm_epsilon);
  forward_linear(gate_up, norm, p.gate_up);
  if (again) return;
  backend_.gated_forward(act, gate_up, Activation::kSilu);
  forward_linear(delta, act, p.down);
}

}  // namespace tunesmith
