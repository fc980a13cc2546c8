// Named parameters as views of few large tensors. Matrices that are read together lie together ([q; k; v], [gate; up]),
// so that one matmul serves them; what decays lies apart from what does not, so that the optimizer runs over two spans.
#pragma once

#include <string>
#include <vector>

#include "backend/backend.h"
#include "core/arena.h"
#include "model/spec.h"

namespace tunesmith {

struct Parameter {
  std::string name;
  bool is_vector;
  bool decays;
  int64_t offset;  // elements into the span
  Tensor value;    // wide
  Tensor grad;     // wide; empty without training
};

// One matmul of the model and its gradient.
struct Linear {
  LinearWeight weight;
  Tensor grad;       // [N, K]
  Tensor bias;       // [N], empty where the model has none
  Tensor bias_grad;  // [N]
};

struct LayerParameters {
  Tensor attention_norm, attention_norm_grad;  // [H]
  Tensor mlp_norm, mlp_norm_grad;              // [H]
  Linear q, kv;                                // last layer only: it projects queries of fewer rows than keys
  Linear qkv;                                  // every other layer
  Linear o, gate_up, down;
};

class Parameters {
 public:
  Parameters(const DecoderSpec& spec, DType compute, bool training, bool adam_moments, const Backend& backend,
             Arena& arena);
  Parameters(const Parameters&) = delete;

  // Call once the arena is bound: turns offsets into views.
  void attach();

  const Parameter& find(const std::string& name) const;  // throws ERR_UNKNOWN_PARAMETER
  const std::vector<Parameter>& all() const { return parameters_; }
  std::vector<Linear*> linears();

  // What decays (matrices, embeddings) and what does not (norms, biases). Moments are empty without AdamW.
  struct Span {
    bool decays;
    Tensor value, grad, m, v;  // one row each, wide
  };
  Span spans[2];

  std::vector<LayerParameters> layers;
  Tensor embedding, embedding_grad;    // [V, H]
  Tensor final_norm, final_norm_grad;  // [H]
  Linear head;                         // [V, H]; shares the embedding when tied

  int64_t largest_n = 0, largest_k = 0;

 private:
  void add(const std::string& name, bool is_vector, int64_t rows, int64_t cols);
  Tensor joined(const std::string& first, int64_t rows, bool grad) const;
  Linear linear(const std::string& prefix, const std::vector<std::string>& parts) const;

  DecoderSpec spec_;
  DType compute_;
  bool training_;
  int64_t span_size_[2] = {0, 0};
  std::vector<Parameter> parameters_;
  std::vector<void*> prepared_;  // per linear, in the order of linears()
};

}  // namespace tunesmith
