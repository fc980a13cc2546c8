// NEFTune's noise, counter-based.
#include <cassert>
#include <cmath>

#include "backend/reference/ops.h"
#include "core/rng.h"

namespace tunesmith::reference {

template <class T>
void embedding_noise(Tensor x, const EmbeddingNoise& noise) {
  for (int32_t b = 0; b < noise.sequences; ++b) {
    const int32_t first = noise.offsets[b], end = noise.offsets[b + 1];
    assert(end <= x.rows);
    const double scale = noise.alpha / std::sqrt(double(end - first) * double(x.cols));
    for (int32_t t = first; t < end; ++t)
      for (int64_t h = 0; h < x.cols; ++h) {
        const uint32_t conversation = uint32_t(noise.conversations[t]);
        const uint32_t word = philox(noise.key, {uint32_t(h / 4), uint32_t(t - first), conversation, 0})[size_t(h % 4)];
        x.row<T>(t)[h] = T(x.row<T>(t)[h] + scale * (double(int32_t(word ^ 0x80000000u)) * 0x1p-31));
      }
  }
}

template void embedding_noise<float>(Tensor, const EmbeddingNoise&);
template void embedding_noise<double>(Tensor, const EmbeddingNoise&);

}  // namespace tunesmith::reference
