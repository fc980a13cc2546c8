#include "train/optimizer.h"

#include <algorithm>
#include <cmath>

#include "core/dynamic_code.h"
#include "core/error.h"

namespace tunesmith {

namespace {

// Tensors with fewer values keep float32 moments, as in bitsandbytes.
constexpr int64_t kSmallest8bit = 4096;

// The rule of one parameter: some hold for a part of the model only, and AdamW for the rest.
OptimizerRule rule_of(OptimizerRule rule, const Parameter& p) {
  const bool table = p.name == "embedding.weight" || p.name == "position_embedding.weight";
  const bool hidden = !p.is_vector && !table && p.name != "head.weight";
  if (rule == OptimizerRule::kMuon && !hidden) return OptimizerRule::kAdamW;
  // Embeddings keep float32 moments (arXiv 2110.02861, section 2.3: their gradients are uneven).
  if (rule == OptimizerRule::kAdamW8bit && (table || p.value.size() < kSmallest8bit)) return OptimizerRule::kAdamW;
  return rule;
}

bool elementwise(OptimizerRule rule) {
  return rule == OptimizerRule::kAdamW || rule == OptimizerRule::kLion || rule == OptimizerRule::kSgd ||
         rule == OptimizerRule::kMomentum;
}

}  // namespace

Optimizer::Optimizer(OptimizerRule rule, Decoder& decoder, Backend& backend, Arena& arena)
    : rule_(rule), decoder_(decoder), backend_(backend) {
  make_spans();
  reserve_state(arena);
}

void Optimizer::make_spans() {
  for (const bool vectors : {false, true}) {
    const Parameter* before = nullptr;
    for (const Parameter& p : decoder_.parameters().all()) {
      if (p.is_vector != vectors) continue;
      // What trains in part does not lie beside its neighbours.
      const bool follows = before && before->group == p.group && before->trained_whole() && p.trained_whole();
      before = &p;
      if (!p.trained()) continue;
      const OptimizerRule rule = rule_of(rule_, p);
      if (follows && elementwise(rule) && spans_.back().rule == rule) {
        Span& span = spans_.back();
        span.value = vector(nullptr, p.value.dtype, span.value.size() + p.value.size());
      } else {
        spans_.push_back({.rule = rule, .group = p.group, .decays = p.decays, .first = &p, .value = p.trained_value()});
      }
    }
  }
}

void Optimizer::reserve_state(Arena& arena) {
  int64_t scratch = 0;
  const DType type = wide(decoder_.options().compute);
  for (Span& span : spans_) {
    const int64_t size = span.value.size();
    const auto reserve = [&](Tensor& state, int64_t count) {
      arena.reserve(MemoryKind::kOptimizer, state, type, 1, count);
    };
    switch (span.rule) {
      case OptimizerRule::kAdamW:
        reserve(span.m, size);
        reserve(span.v, size);
        break;
      case OptimizerRule::kLion:
      case OptimizerRule::kMomentum:
        reserve(span.m, size);
        break;
      case OptimizerRule::kMuon:
        reserve(span.m, size);
        scratch = std::max(scratch, muon_scratch_size(span.value.rows, span.value.cols));
        break;
      case OptimizerRule::kAdafactor:
        if (!span.first->is_vector) reserve(span.row, span.value.rows);
        reserve(span.col, span.value.cols);
        break;
      case OptimizerRule::kAdamW8bit: {
        const size_t blocks = size_t((size + kDynamicBlock - 1) / kDynamicBlock);
        const size_t codes = blocks * size_t(kDynamicBlock);
        span.memory_bytes = 2 * codes + 2 * blocks * sizeof(float);
        arena.reserve(MemoryKind::kOptimizer, span.memory, span.memory_bytes);
        break;
      }
      case OptimizerRule::kSgd:
        break;
    }
  }
  if (scratch) arena.reserve(MemoryKind::kScratch, scratch_, type, 1, scratch);
}

void Optimizer::attach() {
  for (Span& span : spans_) {
    span.value.data = span.first->trained_value().data;
    span.grad = span.value;
    span.grad.data = span.first->grad.data;
    for (const Tensor* state : {&span.m, &span.v, &span.row, &span.col})
      if (*state) backend_.zero(state->data, size_t(state->size()) * size_of(state->dtype));
    if (!span.memory) continue;
    backend_.zero(span.memory, span.memory_bytes);
    const int64_t blocks = (span.value.size() + kDynamicBlock - 1) / kDynamicBlock;
    auto* codes = static_cast<uint8_t*>(span.memory);
    auto* absmax = reinterpret_cast<float*>(codes + 2 * blocks * kDynamicBlock);
    span.moments = {codes, absmax, codes + blocks * kDynamicBlock, absmax + blocks};
  }
}

StepResult Optimizer::step(const OptimizerStep& step) {
  const Parameters& parameters = decoder_.parameters();
  const double squares =
      backend_.sum_squares(parameters.matrix_grads()) + backend_.sum_squares(parameters.vector_grads());
  StepResult result{std::sqrt(squares), false};
  if (!std::isfinite(result.grad_norm)) return result;
  // As torch.nn.utils.clip_grad_norm_ has it, its 1e-6 included.
  const double scale = std::min(1.0, step.max_grad_norm / (result.grad_norm + 1e-6));
  for (Span& span : spans_) update(span, step, scale);
  decoder_.prepare_weights(true);
  result.applied = true;
  return result;
}

void Optimizer::update(Span& span, const OptimizerStep& step, double grad_scale) {
  const ParameterGroup& group = decoder_.parameters().groups[size_t(span.group)];
  const double rate = step.learning_rate * group.learning_rate_scale;
  const double decay = group.weight_decay.value_or(span.decays ? step.weight_decay : 0);
  const double number = double(step.step);
  const AdamWStep adamw{rate,
                        step.beta1,
                        step.beta2,
                        step.epsilon,
                        decay,
                        1 - std::pow(step.beta1, number),
                        1 - std::pow(step.beta2, number),
                        grad_scale};
  switch (span.rule) {
    case OptimizerRule::kAdamW:
      return backend_.adamw(span.value, span.m, span.v, span.grad, adamw);
    case OptimizerRule::kAdamW8bit:
      return backend_.adamw_8bit(span.value, span.moments, span.grad, adamw);
    case OptimizerRule::kLion:
      return backend_.lion(span.value, span.m, span.grad, {rate, step.beta1, step.beta2, decay, grad_scale});
    case OptimizerRule::kAdafactor:
      return backend_.adafactor(span.value, span.row, span.col, span.grad,
                                {rate, 1 - std::pow(number, -0.8), decay, grad_scale});
    case OptimizerRule::kMuon:
      return backend_.muon(span.value, span.m, span.grad, scratch_, {rate, step.momentum, decay, grad_scale});
    case OptimizerRule::kSgd:
    case OptimizerRule::kMomentum:
      return backend_.sgd(span.value, span.m, span.grad, {rate, step.momentum, decay, grad_scale});
  }
}

}  // namespace tunesmith
