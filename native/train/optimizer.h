// Global-norm clipping and the optimizer step over all parameters.
#pragma once

#include "backend/backend.h"
#include "model/decoder.h"

namespace tunesmith {

struct OptimizerStep {
  double learning_rate = 0;
  double beta1 = 0.9, beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;
  double max_grad_norm = 0;  // infinity = no clipping
  int64_t step = 1;          // 1 for the first: bias correction
};

struct StepResult {
  double grad_norm = 0;  // L2 over all gradients, before clipping
  bool applied = false;  // false: the norm was not finite and nothing was changed
};

// AdamW where the decoder has moments, else SGD. Weights are ready for the next forward when it returns.
StepResult optimizer_step(Decoder& decoder, Backend& backend, const OptimizerStep& step);

}  // namespace tunesmith
