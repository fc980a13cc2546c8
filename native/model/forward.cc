// Forward over the layers. See decoder.h for the notation.
#include "model/decoder.h"

namespace tunesmith {

Tensor Decoder::layer_input(size_t layer) {
  return (inputs_.empty() ? activations(layer).x : inputs_[slot_of(layer)]).slice_rows(0, tokens());
}

void Decoder::forward(const std::atomic<bool>& cancel) {
  const Tensor x = layer_input(0);
  backend_.embedding_forward(x, parameters_->embedding, batch_->tokens, spec_.embedding_scale, false);
  disturb_embeddings(x);
  if (parameters_->position_embedding)
    backend_.embedding_forward(x, parameters_->position_embedding, batch_->positions, 1, true);
  drop_embeddings(x);
  for (size_t layer = 0; layer < size_t(spec_.layers); layer++) {
    check_cancelled(cancel);
    forward_layer(layer, false);
  }
  const int64_t r = rows();
  forward_norm(output_.slice_rows(0, r), hidden_.slice_rows(0, r), output_statistics_.slice_cols(0, r),
               stream(size_t(spec_.layers) - 1, r), delta_.slice_rows(0, r), parameters_->final_norm);
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
  const int64_t t = tokens();
  const Tensor x = layer_input(layer);
  const bool has_input = again || layer == 0;
  const Tensor residual = has_input ? x : stream(layer - 1, t);
  const Tensor delta = has_input ? Tensor{} : delta_.slice_rows(0, t);
  const Tensor in = forward_norm(x, norm_.slice_rows(0, t), a.attention_statistics.slice_cols(0, t), residual, delta,
                                 p.attention_norm);
  if (!is_last(layer)) {
    forward_attention(layer, in, again);
    forward_mlp(layer, t, x, again);
  } else {
    forward_last_attention(layer, in);
    const Tensor middle = a.middle.slice_rows(0, rows());
    backend_.gather_rows(middle, x, batch_->supervised_rows);
    forward_mlp(layer, rows(), middle, again);
  }
}

}  // namespace tunesmith
