// Decoding with a key/value cache: the same forward, whose keys and values are appended to the cache and read from it.
#include <algorithm>
#include <string>

#include "core/error.h"
#include "model/decoder.h"

namespace tunesmith {

// While decoding, puts the new keys and values where they belong and widens the views to all that came before.
void Decoder::remember(size_t layer, Tensor& k, Tensor& v) {
  if (cache_position_ < 0) return;
  const int64_t count = batch_->count, end = cache_position_ + count;
  backend_.cast(cache_k_[layer].slice_rows(cache_position_, count), k.slice_rows(0, count));
  backend_.cast(cache_v_[layer].slice_rows(cache_position_, count), v.slice_rows(0, count));
  k = cache_k_[layer].slice_rows(0, end);
  v = cache_v_[layer].slice_rows(0, end);
}

// Runs new tokens, in pieces of what fits a micro-batch.
void Decoder::decode(const int32_t* tokens, int64_t count, int64_t position, bool is_long,
                     const std::atomic<bool>& cancel) {
  for (int64_t done = 0; done < count;) {
    const int64_t step = std::min(count - done, options_.limits.tokens);
    cache_position_ = position + done;
    batch_->load_decoding(backend_, tokens + done, step, cache_position_, is_long ? spec_.max_positions : 0);
    forward(cancel);
    done += step;
  }
}

std::vector<float> Decoder::extend(const std::vector<int32_t>& tokens, int64_t position,
                                   const std::atomic<bool>& cancel) {
  const int64_t count = int64_t(tokens.size());
  const int64_t room = std::min(options_.cache_tokens, spec_.max_positions);
  if (room == 0) throw CodedError("ERR_NO_CACHE", "this engine was created without a key/value cache");
  if (count == 0 || position < 0 || position + count > room)
    throw CodedError("ERR_CONTEXT_FULL", std::to_string(count) + " tokens at position " + std::to_string(position) +
                                             " do not fit the context of " + std::to_string(room));
  for (const int32_t token : tokens)
    if (token < 0 || token >= spec_.vocab_size)
      throw CodedError("ERR_INVALID_BATCH", "id " + std::to_string(token) + " is outside the vocabulary of " +
                                                std::to_string(spec_.vocab_size));

  // Ends decoding mode however this is left, so that a cancelled call does not leak into the next micro-batch.
  struct Guard {
    int64_t& position;
    ~Guard() { position = -1; }
  } guard{cache_position_};
  if (spec_.long_rope_threshold == 0) {
    decode(tokens.data(), count, position, false, cancel);
  } else {
    cached_tokens_.resize(size_t(position));
    cached_tokens_.insert(cached_tokens_.end(), tokens.begin(), tokens.end());
    // A conversation that grows long, or is taken back to a short one, changes its rotary table, and all its keys.
    const bool is_long = position + count > spec_.long_rope_threshold;
    const int64_t kept = is_long == cache_is_long_ ? position : 0;
    cache_is_long_ = is_long;
    decode(cached_tokens_.data() + kept, position + count - kept, kept, is_long, cancel);
  }

  std::vector<float> result(size_t(spec_.vocab_size));
  const Tensor logits = logits_of(0, 1);
  if (wide_ == DType::kFloat64) {
    std::vector<double> values(result.size());
    backend_.download(values.data(), logits.data, values.size() * sizeof(double));
    std::copy(values.begin(), values.end(), result.begin());
  } else {
    backend_.download(result.data(), logits.data, result.size() * sizeof(float));
  }
  return result;
}

}  // namespace tunesmith
