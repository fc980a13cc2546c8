#include "train/optimizer.h"

#include <cmath>

#include "core/error.h"

namespace tunesmith {

StepResult optimizer_step(Decoder& decoder, Backend& backend, const OptimizerStep& step) {
  if (!decoder.options().training) throw CodedError("ERR_NOT_TRAINING", "this engine was created without training");
  Parameters& parameters = decoder.parameters();
  double squares = 0;
  for (const Parameters::Span& span : parameters.spans) squares += backend.sum_squares(span.grad);
  StepResult result{std::sqrt(squares), false};
  if (!std::isfinite(result.grad_norm)) return result;

  // As torch.nn.utils.clip_grad_norm_ has it, its 1e-6 included.
  const double scale = std::min(1.0, step.max_grad_norm / (result.grad_norm + 1e-6));
  for (Parameters::Span& span : parameters.spans) {
    const ParameterGroup& group = parameters.groups[size_t(span.group)];
    const double rate = step.learning_rate * group.learning_rate_scale;
    const double decay = group.weight_decay.value_or(span.decays ? step.weight_decay : 0);
    if (span.m) {
      backend.adamw(span.value, span.m, span.v, span.grad,
                    {rate, step.beta1, step.beta2, step.epsilon, decay, 1 - std::pow(step.beta1, double(step.step)),
                     1 - std::pow(step.beta2, double(step.step)), scale});
    } else {
      backend.sgd(span.value, span.grad, rate, decay, scale);
    }
  }
  decoder.prepare_weights(true);
  result.applied = true;
  return result;
}

}  // namespace tunesmith
