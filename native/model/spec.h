// One normalised description of a decoder, for every model family. Families themselves are known to TypeScript only.
// The meaning of every field stands in lib/native/addon.ts, beside its twin there.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"

namespace tunesmith {

enum class NormKind : uint8_t { kRms, kLayer };
enum class BlockNorms : uint8_t { kPre, kPost, kPreAndPost };
enum class QkNorm : uint8_t { kNone, kHead, kFull };
enum class MlpKind : uint8_t { kGated, kPlain };

struct RopeTable {
  std::vector<double> inverse_frequencies;  // [rotary_dim / 2], scaling already applied
  double scale = 1;                         // of cos and sin
};

struct DecoderSpec {
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t layers = 0;
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int64_t intermediate_size = 0;
  int64_t max_positions = 0;  // the decoder lowers it to what is planned for: rows of each rotary table

  NormKind norm = NormKind::kRms;
  double norm_epsilon = 0;
  bool norm_unit_offset = false;
  bool norm_bias = false;
  BlockNorms block_norms = BlockNorms::kPre;
  bool parallel_residual = false;

  QkNorm qk_norm = QkNorm::kNone;
  bool attention_bias = false;  // on q, k and v
  bool attention_output_bias = false;
  double attention_scale = 0;
  double attention_softcap = 0;        // 0 = none
  std::vector<int32_t> layer_windows;  // [layers], 0 = full attention

  std::vector<RopeTable> ropes;
  std::vector<int32_t> layer_ropes;  // [layers], -1 = none
  int32_t rotary_dim = 0;
  int64_t long_rope_threshold = 0;  // 0 = none

  MlpKind mlp = MlpKind::kGated;
  Activation activation = Activation::kSilu;
  bool mlp_bias = false;

  bool tied_embeddings = false;
  bool head_bias = false;
  double embedding_scale = 1;
  int64_t learned_positions = 0;  // 0 = none
  double residual_scale = 1;
  double logit_scale = 1;
  double logit_softcap = 0;  // 0 = none

  int64_t q_size() const { return int64_t(heads) * head_dim; }
  int64_t kv_size() const { return int64_t(kv_heads) * head_dim; }
  bool pre_norms() const { return block_norms != BlockNorms::kPost; }
  bool post_norms() const { return block_norms != BlockNorms::kPre; }

  // Throws CodedError ERR_INVALID_SPEC naming the field.
  void validate() const;
};

}  // namespace tunesmith
