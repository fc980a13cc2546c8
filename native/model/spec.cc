#include "model/spec.h"

#include <string>

#include "core/error.h"

namespace tunesmith {

void DecoderSpec::validate() const {
  const auto refuse = [](const std::string& text) { throw CodedError("ERR_INVALID_SPEC", "decoder spec: " + text); };
  const auto positive = [&](const char* name, int64_t value) {
    if (value < 1 || value > int64_t(1) << 31) refuse(std::string(name) + " is " + std::to_string(value));
  };
  positive("vocabSize", vocab_size);
  positive("hiddenSize", hidden_size);
  positive("layers", layers);
  positive("heads", heads);
  positive("kvHeads", kv_heads);
  positive("headDim", head_dim);
  positive("intermediateSize", intermediate_size);
  positive("maxPositions", max_positions);
  if (heads % kv_heads != 0)
    refuse("heads (" + std::to_string(heads) + ") is not a multiple of kvHeads (" + std::to_string(kv_heads) + ")");
  if (head_dim % 2 != 0 || head_dim < 2 || head_dim > 256)
    refuse("headDim is " + std::to_string(head_dim) + "; an even number from 2 to 256 is supported");
  if (int64_t(rope_inverse_frequencies.size()) != head_dim / 2)
    refuse("ropeInverseFrequencies has " + std::to_string(rope_inverse_frequencies.size()) + " entries for headDim " +
           std::to_string(head_dim));
  if (!(norm_epsilon > 0)) refuse("normEpsilon is not positive");
}

}  // namespace tunesmith
