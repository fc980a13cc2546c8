// Backward over the layers, by hand, in the reverse order of forward.cc. dx is the gradient of the residual stream;
// dx_compute is the same rounded to what matmuls read, and is dx itself where compute is wide.
#include <algorithm>

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
  backward_norm(dx_rows, dx_rows_compute, dnorm_rows_.slice_rows(0, rows()), output_.slice_rows(0, rows()),
                output_statistics_.slice_cols(0, rows()), parameters_->final_norm);
  const Tensor dx = dx_.slice_rows(0, tokens());
  const Tensor dx_compute = dx_compute_ ? dx_compute_.slice_rows(0, tokens()) : Tensor{};
  for (size_t layer = size_t(spec_.layers); layer-- > 0;) {
    if (lowest > mlp_block(int64_t(layer))) return;
    check_cancelled(cancel);
    const bool attention = lowest <= attention_block(int64_t(layer));
    // The last layer's activations are still there: nothing has run since.
    if (options_.recompute && !is_last(layer)) forward_layer(layer, true);
    const Tensor stream = is_last(layer) ? dx_rows : dx, rounded = is_last(layer) ? dx_rows_compute : dx_compute;
    // Both blocks of a parallel residual read the gradient of what they add to; else the MLP adds its own to it first.
    if (attention && spec_.parallel_residual) backward_attention_output(layer, stream, rounded, first);
    backward_mlp(layer, stream, rounded, first);
    if (!attention) continue;
    if (!spec_.parallel_residual) backward_attention_output(layer, stream, rounded, first);
    if (is_last(layer))
      backward_last_attention(layer, first);
    else
      backward_attention(layer, first);
  }
  if (parameters_->embedding_grad || parameters_->position_embedding_grad) drop_embeddings(dx);
  if (parameters_->embedding_grad) backward_embedding(dx);
  if (parameters_->position_embedding_grad)
    backend_.embedding_backward(parameters_->position_embedding_grad, dx, batch_->positions, 1);
}

// Of a table of which only some rows train, the gradients of their tokens are gathered first, as many at a time as fit
// into the room of the last layer's rows.
void Decoder::backward_embedding(Tensor dx) {
  const Tensor grad = parameters_->embedding_grad;
  if (!batch_->trained_tokens) return backend_.embedding_backward(grad, dx, batch_->tokens, spec_.embedding_scale);
  for (int64_t first = 0; first < batch_->trained_rows_count; first += dx_rows_.rows) {
    const Tensor rows = dx_rows_.slice_rows(0, std::min(dx_rows_.rows, batch_->trained_rows_count - first));
    backend_.gather_rows(rows, dx, batch_->trained_rows + first);
    backend_.embedding_backward(grad, rows, batch_->trained_tokens + first, spec_.embedding_scale);
  }
}

}  // namespace tunesmith
