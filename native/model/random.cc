// What a training step does at random: noise on the embeddings, dropout of the embeddings and of what blocks add to the
// residual stream. Every choice is keyed by seed, step, conversation and position.
#include "core/rng.h"
#include "model/decoder.h"

namespace tunesmith {

uint64_t Decoder::random_key(uint64_t purpose) const {
  const auto words = philox(random_->seed, {uint32_t(random_->step), uint32_t(random_->step >> 32), uint32_t(purpose),
                                            uint32_t(purpose >> 32)});
  return uint64_t(words[0]) << 32 | words[1];
}

bool Decoder::drops(double probability) const { return random_ && probability > 0; }

// Noise of the size that it has beside embeddings as they are stored: it is scaled as they are.
void Decoder::disturb_embeddings(Tensor x) {
  if (random_ && options_.random.neftune_alpha > 0)
    backend_.embedding_noise(
        x, {options_.random.neftune_alpha * spec_.embedding_scale, random_key(hash_name("embedding noise")),
            batch_->numbers, batch_->sequences, batch_->q_offsets});
}

// x, or its gradient.
void Decoder::drop_embeddings(Tensor x) {
  if (drops(options_.random.embedding_dropout))
    backend_.dropout(x, x,
                     {options_.random.embedding_dropout, random_key(hash_name("embedding dropout")),
                      batch_->q_positions, batch_->numbers},
                     false);
}

// From the first layer's rate to the last one's, in even steps.
double Decoder::residual_dropout(size_t layer) const {
  const auto [first, last] = options_.random.residual_dropout;
  return spec_.layers == 1 ? last : first + (last - first) * double(layer) / double(spec_.layers - 1);
}

// Of what the block adds to the stream: T rows, in the last layer R.
DropoutMask Decoder::residual_mask(size_t layer, Block block) const {
  const bool supervised = is_last(layer);
  return {residual_dropout(layer), random_key(hash_name("residual dropout") + 2 * layer + size_t(block)),
          supervised ? batch_->supervised_q_positions : batch_->q_positions,
          supervised ? batch_->supervised_numbers : batch_->numbers};
}

}  // namespace tunesmith
