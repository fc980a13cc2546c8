// The loss: output projection and cross-entropy over the rows that carry it, a chunk of rows at a time.
#include "model/decoder.h"

#include <utility>

namespace tunesmith {

Tensor Decoder::logits_of(int64_t first, int64_t count) {
  const Tensor logits = logits_.slice_rows(0, count);
  forward_linear(logits, hidden_.slice_rows(first, count), parameters_->head);
  if (spec_.logit_scale != 1) backend_.scale_columns(logits, logits, {}, spec_.logit_scale, 0, {});
  if (spec_.logit_softcap != 0) backend_.softcap_forward(logits, spec_.logit_softcap);
  return logits;
}

// [R, V] logits of every row that was asked for, as float32.
void Decoder::read_logits(float* target) {
  const int64_t vocab = spec_.vocab_size;
  for (int64_t first = 0; first < batch_->rows; first += logits_.rows) {
    const int64_t count = std::min(logits_.rows, rows() - first), wanted = std::min(count, batch_->rows - first);
    const Tensor chunk = logits_of(first, count);
    if (wide_ == DType::kFloat64) {
      std::vector<double> values(size_t(wanted * vocab));
      backend_.download(values.data(), chunk.data, values.size() * sizeof(double));
      std::copy(values.begin(), values.end(), target + first * vocab);
    } else {
      backend_.download(target + first * vocab, chunk.data, size_t(wanted * vocab) * sizeof(float));
    }
  }
}

// With `training`, the gradient of the final norm's output is left in dnorm_rows_ and the head's own in its gradient.
LossSums Decoder::head(bool training, double scale, bool first) {
  const int64_t count = rows();
  // Chunks of even size, so that the last one is not a sliver with a primitive of its own.
  const int64_t chunks = (count + logits_.rows - 1) / logits_.rows;
  const int64_t step = round_up((count + chunks - 1) / chunks, backend_.row_bucket());
  for (int64_t start = 0; start < count; start += step) {
    const int64_t size = std::min(step, count - start);
    const Tensor logits = logits_of(start, size);
    Tensor dlogits;
    if (training) dlogits = dlogits_ ? dlogits_.slice_rows(0, size) : logits;
    backend_.cross_entropy(logits, dlogits, nll_.slice_cols(start, size), correct_ + start, batch_->targets + start,
                           batch_->weights.slice_cols(start, size), scale * spec_.logit_scale,
                           training ? options_.objective : Objective{});
    if (!training) continue;
    if (spec_.logit_softcap != 0) backend_.softcap_backward(dlogits, logits, spec_.logit_softcap);
    Linear& head = parameters_->head;
    const Tensor hidden = hidden_.slice_rows(start, size);
    backward_linear(dnorm_rows_.slice_rows(start, size), dlogits, hidden, head, first && start == 0);
  }

  const size_t real = size_t(batch_->rows);
  std::vector<double> nll(real);
  std::vector<int32_t> correct(real);
  if (wide_ == DType::kFloat64) {
    backend_.download(nll.data(), nll_.data, real * sizeof(double));
  } else {
    std::vector<float> narrow(real);
    backend_.download(narrow.data(), nll_.data, real * sizeof(float));
    std::copy(narrow.begin(), narrow.end(), nll.begin());
  }
  backend_.download(correct.data(), correct_, real * sizeof(int32_t));

  LossSums sums;
  sums.per_sequence.assign(size_t(batch_->sequences), 0);
  for (size_t i = 0; i < real; i++) {
    const double weighted = double(batch_->row_weights[i]) * nll[i];
    sums.loss += weighted;
    sums.per_sequence[size_t(batch_->sequence_of_row[i])] += weighted;
    sums.weight += batch_->row_weights[i];
    sums.correct += correct[i];
  }
  sums.supervised = batch_->rows;
  if (!training) sums.nll = std::move(nll);
  return sums;
}

}  // namespace tunesmith
