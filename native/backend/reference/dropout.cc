// Inverted dropout (arXiv 1207.0580) with a counter-based mask.
#include <cassert>

#include "backend/reference/ops.h"
#include "core/rng.h"

namespace tunesmith::reference {

template <class T>
void dropout(Tensor y, Tensor x, const DropoutMask& mask, bool accumulate) {
  assert(y.rows == x.rows && y.cols == x.cols);
  const double scale = 1 / (1 - mask.probability);
  const double threshold = mask.probability * 0x1p32;
  for (int64_t t = 0; t < x.rows; ++t) {
    const uint32_t position = uint32_t(mask.positions[t]), conversation = uint32_t(mask.conversations[t]);
    for (int64_t c = 0; c < x.cols; ++c) {
      const uint32_t word = philox(mask.key, {uint32_t(c / 4), position, conversation, 0})[size_t(c % 4)];
      const T kept = double(word) >= threshold ? T(x.row<T>(t)[c] * scale) : T(0);
      if (accumulate)
        y.row<T>(t)[c] += kept;
      else
        y.row<T>(t)[c] = kept;
    }
  }
}

template void dropout<float>(Tensor, Tensor, const DropoutMask&, bool);
template void dropout<double>(Tensor, Tensor, const DropoutMask&, bool);

}  // namespace tunesmith::reference
