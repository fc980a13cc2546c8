#include "model/spec.h"

#include <cmath>
#include <string>

#include "core/error.h"

namespace tunesmith {

namespace {

[[noreturn]] void refuse(const std::string& text) { throw CodedError("ERR_INVALID_SPEC", "decoder spec: " + text); }

void check_sizes(const DecoderSpec& spec) {
  const auto positive = [](const char* name, int64_t value) {
    if (value < 1 || value > int64_t(1) << 31) refuse(std::string(name) + " is " + std::to_string(value));
  };
  positive("vocabSize", spec.vocab_size);
  positive("hiddenSize", spec.hidden_size);
  positive("layers", spec.layers);
  positive("heads", spec.heads);
  positive("kvHeads", spec.kv_heads);
  positive("headDim", spec.head_dim);
  positive("intermediateSize", spec.intermediate_size);
  positive("maxPositions", spec.max_positions);
  if (spec.heads % spec.kv_heads != 0)
    refuse("heads (" + std::to_string(spec.heads) + ") is not a multiple of kvHeads (" + std::to_string(spec.kv_heads) +
           ")");
  if (spec.head_dim % 2 != 0 || spec.head_dim < 2 || spec.head_dim > 256)
    refuse("headDim is " + std::to_string(spec.head_dim) + "; an even number from 2 to 256 is supported");
}

void check_numbers(const DecoderSpec& spec) {
  const auto positive = [](const char* name, double value) {
    if (!(value > 0) || !std::isfinite(value)) refuse(std::string(name) + " is " + std::to_string(value));
  };
  const auto positive_or_none = [&](const char* name, double value) {
    if (value != 0) positive(name, value);
  };
  positive("normEpsilon", spec.norm_epsilon);
  positive("attentionScale", spec.attention_scale);
  positive("embeddingScale", spec.embedding_scale);
  positive("residualScale", spec.residual_scale);
  positive("logitScale", spec.logit_scale);
  positive_or_none("attentionSoftcap", spec.attention_softcap);
  positive_or_none("logitSoftcap", spec.logit_softcap);
}

void check_layers(const DecoderSpec& spec) {
  const auto per_layer = [&](const char* name, size_t length) {
    if (int64_t(length) != spec.layers)
      refuse(std::string(name) + " has " + std::to_string(length) + " entries for " + std::to_string(spec.layers) +
             " layers");
  };
  per_layer("layerWindows", spec.layer_windows.size());
  per_layer("layerRopes", spec.layer_ropes.size());
  for (const int32_t window : spec.layer_windows)
    if (window < 0) refuse("layerWindows has " + std::to_string(window));
}

void check_ropes(const DecoderSpec& spec) {
  if (spec.rotary_dim < 0 || spec.rotary_dim % 2 != 0 || spec.rotary_dim > spec.head_dim)
    refuse("rotaryDim is " + std::to_string(spec.rotary_dim) + " for headDim " + std::to_string(spec.head_dim) +
           "; an even number up to it is supported");
  if (!spec.ropes.empty() && spec.rotary_dim == 0) refuse("rotaryDim is 0, but there are ropes");
  for (const RopeTable& rope : spec.ropes) {
    if (int64_t(rope.inverse_frequencies.size()) != spec.rotary_dim / 2)
      refuse("a rope has " + std::to_string(rope.inverse_frequencies.size()) + " inverseFrequencies for rotaryDim " +
             std::to_string(spec.rotary_dim));
    if (!(rope.scale > 0) || !std::isfinite(rope.scale)) refuse("a rope's scale is " + std::to_string(rope.scale));
  }
  if (spec.long_rope_threshold < 0)
    refuse("longRopeThreshold is " + std::to_string(spec.long_rope_threshold) + "; 0 is none");
  // Long conversations read the table after their layer's.
  const int32_t after = spec.long_rope_threshold > 0 ? 1 : 0;
  for (const int32_t rope : spec.layer_ropes)
    if (rope < -1 || (rope >= 0 && size_t(rope) + size_t(after) >= spec.ropes.size()))
      refuse("layerRopes names table " + std::to_string(rope) + " of " + std::to_string(spec.ropes.size()) +
             (after ? ", and longRopeThreshold wants another after it" : ""));
}

// Combinations that no known family has, and that nothing is built for.
void check_combinations(const DecoderSpec& spec) {
  const bool layer = spec.norm == NormKind::kLayer;
  if (spec.norm_bias && !layer) refuse("normBias goes with norm 'layer'");
  if (spec.norm_unit_offset && layer) refuse("normUnitOffset goes with norm 'rms'");
  if (spec.qk_norm != QkNorm::kNone && layer) refuse("qkNorm goes with norm 'rms'");
  if (spec.post_norms() && layer) refuse("blockNorms 'post' and 'pre+post' go with norm 'rms'");
  if (spec.parallel_residual && spec.block_norms != BlockNorms::kPre)
    refuse("parallelResidual goes with blockNorms 'pre'");
  if (spec.learned_positions < 0) refuse("learnedPositions is " + std::to_string(spec.learned_positions));
  if (spec.learned_positions > 0 && spec.learned_positions < spec.max_positions)
    refuse("learnedPositions (" + std::to_string(spec.learned_positions) + ") is less than maxPositions (" +
           std::to_string(spec.max_positions) + ")");
  if (spec.learned_positions > 0 && spec.long_rope_threshold > 0)
    refuse("learnedPositions and longRopeThreshold do not go together");
}

}  // namespace

void DecoderSpec::validate() const {
  check_sizes(*this);
  check_numbers(*this);
  check_layers(*this);
  check_ropes(*this);
  check_combinations(*this);
}

}  // namespace tunesmith
