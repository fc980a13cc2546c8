// A micro-batch as it comes from outside, checked, and as index arrays on the device.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "core/arena.h"
#include "model/spec.h"

namespace tunesmith {

// Conversations laid end to end; the target of token t is the token after it, its weight 0 for context.
struct MicroBatch {
  std::vector<int32_t> tokens;      // [T]
  std::vector<int32_t> positions;   // [T]
  std::vector<int32_t> cu_seqlens;  // [B + 1]
  std::vector<int32_t> targets;     // [T]
  std::vector<float> weights;       // [T]
  // [B] number of each conversation in its step, which random masks are keyed by; empty: 0, 1, ...
  std::vector<int32_t> numbers;

  int64_t token_count() const { return int64_t(tokens.size()); }
  int64_t sequence_count() const { return int64_t(cu_seqlens.size()) - 1; }
};

// New tokens of one sequence of the key/value cache.
struct DecodingSpan {
  const int32_t* tokens;
  int64_t count;
  int64_t position;     // of the first of them in its sequence
  int64_t cache_row;    // where its sequence begins in the cache
  int64_t rope_offset;  // added to positions: in which rotary table they are
};

struct BatchLimits {
  int64_t tokens = 0;      // T
  int64_t supervised = 0;  // R
  int64_t sequences = 0;   // B
};

inline int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// The micro-batch on the device. T and R are rounded up to the backend's bucket with rows that belong to no sequence.
class DeviceBatch {
 public:
  // `random`: with the arrays that random masks are keyed by.
  DeviceBatch(const BatchLimits& limits, int64_t bucket, DType compute, bool random, Arena& arena);

  // For the gradient of a table of which only the rows of tokens [first, first + count) train.
  void reserve_trained_tokens(int64_t first, int64_t count, Arena& arena);

  // Checks everything an op would trust, then uploads. `every_row` treats all rows as supervised (logits for
  // inspection). Throws CodedError ERR_INVALID_BATCH.
  void load(Backend& backend, const DecoderSpec& spec, const MicroBatch& batch, bool every_row);

  // New tokens of sequences in the key/value cache, laid end to end; the last row of each is supervised. A few tokens,
  // or rows, are not padded. Checked by the caller.
  void load_decoding(Backend& backend, const std::vector<DecodingSpan>& spans);

  AttentionBatch attention() const { return {sequences, q_offsets, k_offsets, k_lengths, q_positions}; }
  AttentionBatch supervised_attention() const {
    return {sequences, supervised_offsets, k_offsets, k_lengths, supervised_q_positions};
  }

  int64_t count = 0;                     // T
  int64_t padded_tokens = 0;             // T rounded up
  int64_t rows = 0;                      // R, rows that carry loss
  int64_t padded_rows = 0;               // R rounded up
  int32_t sequences = 0;                 // B
  std::vector<int32_t> sequence_of_row;  // [R] host
  std::vector<float> row_weights;        // [R] host

  // Device arrays, int32.
  int32_t* tokens = nullptr;                  // [T]
  int32_t* positions = nullptr;               // [T] rows of the rotary table: of long conversations, where the model
                                              // has a second table for them, in that one
  int32_t* q_positions = nullptr;             // [T] index within the sequence
  int32_t* q_offsets = nullptr;               // [B + 1]
  int32_t* k_offsets = nullptr;               // [B]
  int32_t* k_lengths = nullptr;               // [B]
  int32_t* supervised_rows = nullptr;         // [R] token index of each row that carries loss
  int32_t* supervised_positions = nullptr;    // [R] the same of the rows that carry loss
  int32_t* supervised_q_positions = nullptr;  // [R]
  int32_t* supervised_offsets = nullptr;      // [B + 1]
  int32_t* targets = nullptr;                 // [R]
  int32_t* numbers = nullptr;                 // [T] MicroBatch::numbers of each token's conversation
  int32_t* supervised_numbers = nullptr;      // [R]
  Tensor weights;                             // [R] wide
  int64_t trained_rows_count = 0;             // rows whose token's row of the table trains, where not all do
  int32_t* trained_rows = nullptr;            // [trained_rows_count] of them the rows
  int32_t* trained_tokens = nullptr;          // [trained_rows_count] and the tokens, counted from the first that trains

 private:
  void load_trained_tokens(Backend& backend, const MicroBatch& batch);
  void load_numbers(Backend& backend, const MicroBatch& batch);

  BatchLimits limits_;
  int64_t bucket_;
  int64_t first_trained_token_ = 0, trained_token_count_ = 0;
};

}  // namespace tunesmith
