// Global-norm clipping, and the optimizer: its state and its step over everything that trains.
#pragma once

#include <string>
#include <vector>

#include "backend/backend.h"
#include "core/arena.h"
#include "model/decoder.h"

namespace tunesmith {

enum class OptimizerRule : uint8_t { kAdamW, kAdamW8bit, kLion, kAdafactor, kMuon, kSgd, kMomentum };

struct OptimizerStep {
  double learning_rate = 0;
  double beta1 = 0.9, beta2 = 0.999;
  double epsilon = 1e-8;
  double momentum = 0;  // Muon, SGD with momentum
  double weight_decay = 0;
  double max_grad_norm = 0;  // infinity = no clipping
  int64_t step = 1;          // 1 for the first: bias correction
};

struct StepResult {
  double grad_norm = 0;  // L2 over all gradients, before clipping
  bool applied = false;  // false: the norm was not finite and nothing was changed
};

class Optimizer {
 public:
  // Reserves the state in `arena`; nothing is touched before arena.bind() and attach().
  Optimizer(OptimizerRule rule, Decoder& decoder, Backend& backend, Arena& arena);
  Optimizer(const Optimizer&) = delete;

  void attach();  // after the decoder's: views, zeroed state

  // Weights are ready for the next forward when it returns.
  StepResult step(const OptimizerStep& step);

 private:
  // What is updated at once: neighbouring parameters of one group and rule, or one parameter where the rule looks at
  // its shape or cuts it into blocks.
  struct Span {
    OptimizerRule rule;
    int group;
    bool decays;  // matrices, embeddings; not norms, biases
    const Parameter* first;
    Tensor value, grad = {};    // wide: one row, or the shape of the one parameter
    Tensor m = {}, v = {};      // wide: AdamW; Lion, Muon and momentum have m alone
    Tensor row = {}, col = {};  // wide: Adafactor; vectors have col alone
    Moments8 moments = {};      // AdamW in 8 bits: all of it lies in `memory`
    void* memory = nullptr;
    size_t memory_bytes = 0;
  };

  void make_spans();
  void reserve_state(Arena& arena);
  void update(Span& span, const OptimizerStep& step, double grad_scale);

  OptimizerRule rule_;
  Decoder& decoder_;
  Backend& backend_;
  std::vector<Span> spans_;
  Tensor scratch_;  // of Muon
};

}  // namespace tunesmith
