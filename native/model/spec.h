// One normalised description of a decoder, for every model family. Families themselves are known to TypeScript only.
#pragma once

#include <cstdint>
#include <vector>

namespace tunesmith {

struct DecoderSpec {
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t layers = 0;
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int64_t intermediate_size = 0;
  int64_t max_positions = 0;  // rows of the rotary table
  double norm_epsilon = 0;
  std::vector<double> rope_inverse_frequencies;  // [head_dim / 2], scaling already applied
  bool attention_bias = false;                   // on q, k and v
  bool attention_output_bias = false;
  bool mlp_bias = false;
  bool tied_embeddings = false;

  int64_t q_size() const { return int64_t(heads) * head_dim; }
  int64_t kv_size() const { return int64_t(kv_heads) * head_dim; }

  // Throws CodedError ERR_INVALID_SPEC naming the field.
  void validate() const;
};

}  // namespace tunesmith
