// Decoding with a key/value cache: the same forward, whose keys and values are appended to the cache and read from it.
#include <algorithm>
#include <string>
#include <vector>

#include "core/error.h"
#include "model/decoder.h"

namespace tunesmith {

// While decoding, puts the new keys and values where they belong and widens the views to all that is cached.
void Decoder::remember(size_t layer, Tensor& k, Tensor& v) {
  if (decoding_.empty()) return;
  int64_t from = 0, end = 0;
  for (const DecodingSpan& span : decoding_) {
    const int64_t to = span.cache_row + span.position;
    backend_.cast(cache_k_[layer].slice_rows(to, span.count), k.slice_rows(from, span.count));
    backend_.cast(cache_v_[layer].slice_rows(to, span.count), v.slice_rows(from, span.count));
    from += span.count;
    end = std::max(end, to + span.count);
  }
  k = cache_k_[layer].slice_rows(0, end);
  v = cache_v_[layer].slice_rows(0, end);
}

void Decoder::check_spans(const std::vector<CacheSpan>& sequences) const {
  const int64_t room = std::min(options_.cache_tokens, spec_.max_positions);
  if (room == 0) throw CodedError("ERR_NO_CACHE", "this engine was created without a key/value cache");
  if (sequences.empty()) throw CodedError("ERR_INVALID_BATCH", "no sequence to continue");
  std::vector<bool> used(size_t(options_.cache_sequences));
  for (const auto& [slot, position, tokens] : sequences) {
    if (slot < 0 || slot >= options_.cache_sequences || used[size_t(slot)])
      throw CodedError("ERR_INVALID_BATCH", "sequence " + std::to_string(slot) + " comes twice, or is none of the " +
                                                std::to_string(options_.cache_sequences) + " of the cache");
    used[size_t(slot)] = true;
    const int64_t count = int64_t(tokens.size());
    if (count == 0 || position < 0 || position + count > room)
      throw CodedError("ERR_CONTEXT_FULL", std::to_string(count) + " tokens at position " + std::to_string(position) +
                                               " do not fit the context of " + std::to_string(room));
    for (const int32_t token : tokens)
      if (token < 0 || token >= spec_.vocab_size)
        throw CodedError("ERR_INVALID_BATCH", "id " + std::to_string(token) + " is outside the vocabulary of " +
                                                  std::to_string(spec_.vocab_size));
  }
}

// What must be computed for a sequence: its new tokens, or more where they change how those before are rotated.
DecodingSpan Decoder::decoding_span(const CacheSpan& sequence) {
  const int64_t count = int64_t(sequence.tokens.size()), row = sequence.slot * options_.cache_tokens;
  if (spec_.long_rope_threshold == 0) return {sequence.tokens.data(), count, sequence.position, row, 0};
  auto& [tokens, was_long] = cached_[size_t(sequence.slot)];
  tokens.resize(size_t(sequence.position));
  tokens.insert(tokens.end(), sequence.tokens.begin(), sequence.tokens.end());
  // A conversation that grows long, or is taken back to a short one, changes its rotary table, and all its keys.
  const bool is_long = sequence.position + count > spec_.long_rope_threshold;
  const int64_t kept = was_long == is_long ? sequence.position : 0;
  if (kept == 0) was_long.reset();
  return {tokens.data() + kept, int64_t(tokens.size()) - kept, kept, row, is_long ? spec_.max_positions : 0};
}

void Decoder::decode(std::vector<DecodingSpan> spans, const std::atomic<bool>& cancel) {
  decoding_ = std::move(spans);
  batch_->load_decoding(backend_, decoding_);
  forward(cancel);
}

std::vector<float> Decoder::extend(const std::vector<CacheSpan>& sequences, const std::atomic<bool>& cancel) {
  check_spans(sequences);
  std::vector<DecodingSpan> spans;
  int64_t total = 0;
  for (const CacheSpan& sequence : sequences) {
    spans.push_back(decoding_span(sequence));
    total += spans.back().count;
  }
  // Ends decoding mode however this is left, so that a cancelled call does not leak into the next micro-batch.
  struct Guard {
    std::vector<DecodingSpan>& spans;
    ~Guard() { spans.clear(); }
  } guard{decoding_};

  // Only now are all keys of a conversation of one table: a call that was cancelled makes the next begin again.
  const auto finish = [&] {
    if (spec_.long_rope_threshold == 0) return;
    for (const CacheSpan& sequence : sequences) {
      CachedSequence& cached = cached_[size_t(sequence.slot)];
      cached.is_long = int64_t(cached.tokens.size()) > spec_.long_rope_threshold;
    }
  };
  const int64_t number = int64_t(spans.size());
  const BatchLimits& limits = options_.limits;
  std::vector<float> result(size_t(number * spec_.vocab_size));
  if (total <= limits.tokens && number <= limits.supervised && number <= limits.sequences) {
    decode(std::move(spans), cancel);
    finish();
    read_logits(result.data());
    return result;
  }
  // One after the other, in pieces of what fits a micro-batch.
  for (int64_t i = 0; i < number; i++) {
    DecodingSpan rest = spans[size_t(i)];
    while (rest.count > 0) {
      DecodingSpan piece = rest;
      piece.count = std::min(rest.count, limits.tokens);
      decode({piece}, cancel);
      rest.tokens += piece.count;
      rest.position += piece.count;
      rest.count -= piece.count;
    }
    read_logits(result.data() + i * spec_.vocab_size);
  }
  finish();
  return result;
}

}  // namespace tunesmith
