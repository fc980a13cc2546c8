#include "model/batch.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "core/error.h"

namespace tunesmith {

namespace {

[[noreturn]] void refuse(const std::string& text) { throw CodedError("ERR_INVALID_BATCH", "micro-batch: " + text); }

void check(const DecoderSpec& spec, const MicroBatch& batch, const BatchLimits& limits) {
  const int64_t count = batch.token_count();
  const auto number = [](auto value) { return std::to_string(value); };
  if (count == 0) refuse("no tokens");
  if (count > limits.tokens) refuse(number(count) + " tokens, but the engine was planned for " + number(limits.tokens));
  const auto same_length = [&](const char* name, size_t length) {
    if (int64_t(length) != count)
      refuse(std::string(name) + " has " + number(length) + " entries for " + number(count) + " tokens");
  };
  same_length("positions", batch.positions.size());
  same_length("targets", batch.targets.size());
  same_length("weights", batch.weights.size());
  if (batch.cu_seqlens.size() < 2 || batch.cu_seqlens.front() != 0 || batch.cu_seqlens.back() != count)
    refuse("cuSeqlens must run from 0 to the number of tokens");
  if (!batch.numbers.empty() && int64_t(batch.numbers.size()) != batch.sequence_count())
    refuse("numbers has " + number(batch.numbers.size()) + " entries for " + number(batch.sequence_count()) +
           " conversations");
  if (batch.sequence_count() > limits.sequences)
    refuse(number(batch.sequence_count()) + " conversations, but the engine was planned for " +
           number(limits.sequences));
  for (size_t i = 1; i < batch.cu_seqlens.size(); i++)
    if (batch.cu_seqlens[i] <= batch.cu_seqlens[i - 1]) refuse("cuSeqlens must rise at entry " + number(i));
  for (int64_t t = 0; t < count; t++) {
    const auto at = " at token " + number(t);
    if (batch.tokens[t] < 0 || batch.tokens[t] >= spec.vocab_size)
      refuse("id " + number(batch.tokens[t]) + at + " is outside the vocabulary of " + number(spec.vocab_size));
    if (batch.positions[t] < 0 || batch.positions[t] >= spec.max_positions)
      refuse("position " + number(batch.positions[t]) + at + " is outside the " + number(spec.max_positions) +
             " positions" + " that the engine was planned for");
    if (!std::isfinite(batch.weights[t]) || batch.weights[t] < 0) refuse("weight " + number(batch.weights[t]) + at);
    if (batch.weights[t] > 0 && (batch.targets[t] < 0 || batch.targets[t] >= spec.vocab_size))
      refuse("target " + number(batch.targets[t]) + at + " is outside the vocabulary of " + number(spec.vocab_size));
  }
}

}  // namespace

DeviceBatch::DeviceBatch(const BatchLimits& limits, int64_t bucket, DType compute, bool random, Arena& arena)
    : limits_(limits), bucket_(bucket) {
  const int64_t t = round_up(limits.tokens, bucket), r = round_up(limits.supervised, bucket), b = limits.sequences;
  for (int32_t** array : {&tokens, &positions, &q_positions}) arena.reserve_ints(MemoryKind::kScratch, *array, t);
  for (int32_t** array : {&supervised_rows, &supervised_positions, &supervised_q_positions, &targets})
    arena.reserve_ints(MemoryKind::kScratch, *array, r);
  for (int32_t** array : {&q_offsets, &k_offsets, &k_lengths, &supervised_offsets})
    arena.reserve_ints(MemoryKind::kScratch, *array, b + 1);
  arena.reserve(MemoryKind::kScratch, weights, wide(compute), 1, r);
  if (!random) return;
  arena.reserve_ints(MemoryKind::kScratch, numbers, t);
  arena.reserve_ints(MemoryKind::kScratch, supervised_numbers, r);
}

void DeviceBatch::load(Backend& backend, const DecoderSpec& spec, const MicroBatch& batch, bool every_row) {
  check(spec, batch, limits_);
  count = batch.token_count();
  sequences = int32_t(batch.sequence_count());
  sequence_of_row.clear();
  row_weights.clear();

  std::vector<int32_t> index(count), rope_positions = batch.positions, lengths, offsets, rows_host, row_positions,
                                     row_index, row_offsets{0}, row_targets;
  for (int32_t b = 0; b < sequences; b++) {
    const int32_t first = batch.cu_seqlens[b], end = batch.cu_seqlens[b + 1];
    offsets.push_back(first);
    lengths.push_back(end - first);
    if (spec.long_rope_threshold > 0 && end - first > spec.long_rope_threshold)
      for (int32_t t = first; t < end; t++) rope_positions[t] += int32_t(spec.max_positions);
    for (int32_t t = first; t < end; t++) {
      index[t] = t - first;
      if (!every_row && batch.weights[t] == 0) continue;
      rows_host.push_back(t);
      row_positions.push_back(rope_positions[t]);
      row_index.push_back(t - first);
      row_targets.push_back(batch.weights[t] > 0 ? batch.targets[t] : 0);
      row_weights.push_back(batch.weights[t]);
      sequence_of_row.push_back(b);
    }
    row_offsets.push_back(int32_t(rows_host.size()));
  }
  rows = int64_t(rows_host.size());
  if (rows > limits_.supervised)
    refuse(std::to_string(rows) + " rows carry loss, but the engine was planned for " +
           std::to_string(limits_.supervised));
  padded_tokens = round_up(count, bucket_);
  padded_rows = round_up(rows, bucket_);

  const auto put = [&](int32_t* device, std::vector<int32_t> host, int64_t padded) {
    host.resize(size_t(padded), 0);
    backend.upload(device, host.data(), host.size() * sizeof(int32_t));
  };
  put(tokens, batch.tokens, padded_tokens);
  put(positions, rope_positions, padded_tokens);
  put(q_positions, index, padded_tokens);
  put(q_offsets, batch.cu_seqlens, sequences + 1);
  put(k_offsets, offsets, sequences);
  put(k_lengths, lengths, sequences);
  put(supervised_rows, rows_host, padded_rows);
  put(supervised_positions, row_positions, padded_rows);
  put(supervised_q_positions, row_index, padded_rows);
  put(supervised_offsets, row_offsets, sequences + 1);
  put(targets, row_targets, padded_rows);
  if (numbers) load_numbers(backend, batch);
  if (trained_tokens) load_trained_tokens(backend, batch);

  // Filler rows weigh nothing, so their gradient is zero however wild their logits are.
  if (weights.dtype == DType::kFloat64) {
    std::vector<double> host(row_weights.begin(), row_weights.end());
    host.resize(size_t(padded_rows), 0);
    backend.upload(weights.data, host.data(), host.size() * sizeof(double));
  } else {
    std::vector<float> host = row_weights;
    host.resize(size_t(padded_rows), 0);
    backend.upload(weights.data, host.data(), host.size() * sizeof(float));
  }
}

void DeviceBatch::reserve_trained_tokens(int64_t first, int64_t count, Arena& arena) {
  first_trained_token_ = first;
  trained_token_count_ = count;
  for (int32_t** array : {&trained_rows, &trained_tokens})
    arena.reserve_ints(MemoryKind::kScratch, *array, limits_.tokens);
}

void DeviceBatch::load_trained_tokens(Backend& backend, const MicroBatch& batch) {
  std::vector<int32_t> of_rows, of_tokens;
  for (int64_t t = 0; t < count; t++) {
    const int64_t token = batch.tokens[size_t(t)] - first_trained_token_;
    if (token < 0 || token >= trained_token_count_) continue;
    of_rows.push_back(int32_t(t));
    of_tokens.push_back(int32_t(token));
  }
  trained_rows_count = int64_t(of_rows.size());
  backend.upload(trained_rows, of_rows.data(), of_rows.size() * sizeof(int32_t));
  backend.upload(trained_tokens, of_tokens.data(), of_tokens.size() * sizeof(int32_t));
}

void DeviceBatch::load_numbers(Backend& backend, const MicroBatch& batch) {
  const auto number = [&](int32_t sequence) {
    return batch.numbers.empty() ? sequence : batch.numbers[size_t(sequence)];
  };
  std::vector<int32_t> of_tokens(size_t(padded_tokens), 0), of_rows(size_t(padded_rows), 0);
  for (int32_t b = 0; b < sequences; b++)
    std::fill(of_tokens.begin() + batch.cu_seqlens[b], of_tokens.begin() + batch.cu_seqlens[b + 1], number(b));
  for (int64_t r = 0; r < rows; r++) of_rows[size_t(r)] = number(sequence_of_row[size_t(r)]);
  backend.upload(numbers, of_tokens.data(), of_tokens.size() * sizeof(int32_t));
  backend.upload(supervised_numbers, of_rows.data(), of_rows.size() * sizeof(int32_t));
}

void DeviceBatch::load_decoding(Backend& backend, const std::vector<DecodingSpan>& spans) {
  std::vector<int32_t> ids, rope_index, index, offsets{0}, first_keys, lengths, last_rows, row_rope_index, row_index,
      row_offsets{0};
  for (const DecodingSpan& span : spans) {
    for (int64_t i = 0; i < span.count; i++) {
      ids.push_back(span.tokens[i]);
      rope_index.push_back(int32_t(span.rope_offset + span.position + i));
      index.push_back(int32_t(span.position + i));
    }
    offsets.push_back(int32_t(ids.size()));
    first_keys.push_back(int32_t(span.cache_row));
    lengths.push_back(int32_t(span.position + span.count));
    last_rows.push_back(int32_t(ids.size()) - 1);
    row_rope_index.push_back(rope_index.back());
    row_index.push_back(index.back());
    row_offsets.push_back(int32_t(last_rows.size()));
  }
  const auto padded = [&](int64_t n) { return n <= 8 ? n : round_up(n, bucket_); };
  count = int64_t(ids.size());
  sequences = int32_t(spans.size());
  rows = int64_t(spans.size());
  padded_tokens = padded(count);
  padded_rows = padded(rows);
  const auto put = [&](int32_t* device, std::vector<int32_t> host, int64_t size) {
    host.resize(size_t(size), 0);
    backend.upload(device, host.data(), host.size() * sizeof(int32_t));
  };
  put(tokens, ids, padded_tokens);
  put(positions, rope_index, padded_tokens);
  put(q_positions, index, padded_tokens);
  put(q_offsets, offsets, sequences + 1);
  put(k_offsets, first_keys, sequences);
  put(k_lengths, lengths, sequences);
  put(supervised_rows, last_rows, padded_rows);
  put(supervised_positions, row_rope_index, padded_rows);
  put(supervised_q_positions, row_index, padded_rows);
  put(supervised_offsets, row_offsets, sequences + 1);
}

}  // namespace tunesmith
