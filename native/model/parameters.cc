#include "model/parameters.h"

#include "core/error.h"

namespace tunesmith {

Parameters::Parameters(const DecoderSpec& spec, DType compute, const TrainingOptions& options, const Backend& backend,
                       Arena& arena)
    : spec_(spec), compute_(compute), options_(options) {
  const int64_t hidden = spec.hidden_size;
  add("embedding.weight", false, spec.vocab_size, hidden);
  if (spec.learned_positions > 0) add("position_embedding.weight", false, spec.learned_positions, hidden);
  if (!spec.tied_embeddings) add("head.weight", false, spec.vocab_size, hidden);
  for (int64_t i = 0; i < spec.layers; i++) add_layer("layers." + std::to_string(i) + ".");
  add_norm("final_norm", hidden);
  if (spec.head_bias) add("head.bias", true, 1, spec.vocab_size);
  add_adapters();

  assign_groups();
  reserve_quantized(arena);

  const DType type = wide(compute);
  for (int i = 0; i < 2; i++) {
    arena.reserve(MemoryKind::kParameters, values_[i], type, 1, size_[i]);
    if (!options.training) continue;
    arena.reserve(MemoryKind::kGradients, grads_[i], type, 1, trained_size_[i]);
  }

  // Shapes are needed to size the prepared copies before the spans have memory.
  attach();
  const std::vector<Linear*> all_linears = linears();
  prepared_.resize(all_linears.size());
  for (size_t i = 0; i < all_linears.size(); i++) {
    const Tensor& master = all_linears[i]->weight.master;
    largest_n = std::max(largest_n, master.rows);
    largest_k = std::max(largest_k, master.cols);
    const bool quantized = !all_linears[i]->weight.quantized.empty();
    const size_t bytes =
        backend.linear_prepared_bytes({master.rows, master.cols, compute, all_linears[i]->use, quantized});
    if (bytes) arena.reserve(MemoryKind::kPrepared, prepared_[i], bytes);
  }
  reserve_adapters(backend, arena);
}

void Parameters::add(const std::string& name, bool is_vector, int64_t rows, int64_t cols) {
  int64_t& size = size_[is_vector];
  parameters_.push_back({name, is_vector, !is_vector, -1, size, 0, matrix(nullptr, wide(compute_), rows, cols), {}});
  if (options_.quantization != Quantization::kNone && !options_.dequantized && quantizes(parameters_.back())) {
    parameters_.back().nf4 = int(nf4_.size());
    nf4_.push_back({rows, cols});
  } else {
    size += rows * cols;
  }
}

bool Parameters::quantizes(const Parameter& p) const {
  return !p.is_vector && p.name.starts_with("layers.") && p.name.ends_with(".weight");
}

void Parameters::reserve_quantized(Arena& arena) {
  for (Nf4Matrix& m : nf4_) reserve_nf4(arena, m, options_.quantization == Quantization::kNf4Doubled);
}

void Parameters::add_norm(const std::string& name, int64_t width) {
  add(name + ".weight", true, 1, width);
  if (spec_.norm_bias) add(name + ".bias", true, 1, width);
}

// What one matmul reads (q, k and v; gate and up) is added without anything of its kind between.
void Parameters::add_layer(const std::string& prefix) {
  const int64_t hidden = spec_.hidden_size, q = spec_.q_size(), kv = spec_.kv_size(), inner = spec_.intermediate_size;
  const bool gated = spec_.mlp == MlpKind::kGated;
  if (spec_.pre_norms()) add_norm(prefix + "attention_norm", hidden);
  add(prefix + "attention.q.weight", false, q, hidden);
  add(prefix + "attention.k.weight", false, kv, hidden);
  add(prefix + "attention.v.weight", false, kv, hidden);
  if (spec_.attention_bias) {
    add(prefix + "attention.q.bias", true, 1, q);
    add(prefix + "attention.k.bias", true, 1, kv);
    add(prefix + "attention.v.bias", true, 1, kv);
  }
  if (spec_.qk_norm != QkNorm::kNone) {
    const bool full = spec_.qk_norm == QkNorm::kFull;
    add_norm(prefix + "attention.q_norm", full ? q : spec_.head_dim);
    add_norm(prefix + "attention.k_norm", full ? kv : spec_.head_dim);
  }
  add(prefix + "attention.o.weight", false, hidden, q);
  if (spec_.attention_output_bias) add(prefix + "attention.o.bias", true, 1, hidden);
  if (spec_.post_norms()) add_norm(prefix + "attention_post_norm", hidden);
  if (spec_.pre_norms()) add_norm(prefix + "mlp_norm", hidden);
  if (gated) add(prefix + "mlp.gate.weight", false, inner, hidden);
  add(prefix + "mlp.up.weight", false, inner, hidden);
  add(prefix + "mlp.down.weight", false, hidden, inner);
  if (spec_.mlp_bias) {
    if (gated) add(prefix + "mlp.gate.bias", true, 1, inner);
    add(prefix + "mlp.up.bias", true, 1, inner);
    add(prefix + "mlp.down.bias", true, 1, hidden);
  }
  if (spec_.post_norms()) add_norm(prefix + "mlp_post_norm", hidden);
}

void Parameters::attach() {
  attach_views();
  layers.resize(size_t(spec_.layers));
  for (size_t i = 0; i < layers.size(); i++) {
    LayerParameters& layer = layers[i];
    const std::string name = "layers." + std::to_string(i) + ".";
    layer.attention_norm = norm(name + "attention_norm");
    layer.mlp_norm = norm(name + "mlp_norm");
    layer.attention_post_norm = norm(name + "attention_post_norm");
    layer.mlp_post_norm = norm(name + "mlp_post_norm");
    layer.q_norm = norm(name + "attention.q_norm");
    layer.k_norm = norm(name + "attention.k_norm");
    if (i + 1 < layers.size()) {
      layer.qkv = linear(name + "attention.", {"q", "k", "v"});
    } else {
      layer.q = linear(name + "attention.", {"q"});
      layer.kv = linear(name + "attention.", {"k", "v"});
    }
    layer.o = linear(name + "attention.", {"o"});
    layer.gate_up =
        spec_.mlp == MlpKind::kGated ? linear(name + "mlp.", {"gate", "up"}) : linear(name + "mlp.", {"up"});
    layer.down = linear(name + "mlp.", {"down"});
  }
  final_norm = norm("final_norm");
  const Parameter& table = find("embedding.weight");
  embedding = table.value;
  embedding_grad = table.grad;
  if (const Parameter* positions = try_find("position_embedding.weight")) {
    position_embedding = positions->value;
    position_embedding_grad = positions->grad;
  }
  const std::string output = spec_.tied_embeddings ? "embedding.weight" : "head.weight";
  head.weight.master = find(output).value;
  head.weight.compute = compute_;
  head.trained = trained_rows({output});
  if (spec_.head_bias) {
    head.bias = joined("head.bias", spec_.vocab_size);
    head.trained_bias = trained_rows({"head.bias"});
  }
  find_input_gradients();

  const std::vector<Linear*> all_linears = linears();
  for (size_t i = 0; i < prepared_.size(); i++) all_linears[i]->weight.prepared = prepared_[i];
  if (options_.training)
    for (Linear* linear : all_linears) linear->use = linear->trained.empty() ? LinearUse::kFrozen : LinearUse::kTrained;
}

Norm Parameters::norm(const std::string& name) const {
  Norm result;
  const auto part = [&](const char* suffix, Tensor& value, Tensor& grad) {
    const Parameter* p = try_find(name + suffix);
    if (!p) return;
    value = vector(p->value.data, p->value.dtype, p->value.cols);
    if (p->trained()) grad = vector(p->grad.data, p->grad.dtype, p->grad.cols);
  };
  part(".weight", result.weight, result.weight_grad);
  part(".bias", result.bias, result.bias_grad);
  return result;
}

// A view that starts at parameter `first` and runs over `rows` rows (elements, for vectors) of it and what follows.
Tensor Parameters::joined(const std::string& first, int64_t rows) const {
  const Parameter& p = find(first);
  return p.is_vector ? vector(p.value.data, p.value.dtype, rows)
                     : matrix(p.value.data, p.value.dtype, rows, p.value.cols);
}

Linear Parameters::linear(const std::string& prefix, const std::vector<std::string>& parts) {
  int64_t rows = 0;
  std::vector<std::string> weights, biases;
  for (const std::string& part : parts) {
    rows += find(prefix + part + ".weight").value.rows;
    weights.push_back(prefix + part + ".weight");
    biases.push_back(prefix + part + ".bias");
  }
  Linear result{{joined(weights[0], rows), compute_, nullptr}, {}, trained_rows(weights), {}};
  if (const int nf4 = find(weights[0]).nf4; nf4 >= 0) result.weight.quantized = {nf4_.data() + nf4, weights.size()};
  if (try_find(biases[0])) {
    result.bias = joined(biases[0], rows);
    result.trained_bias = trained_rows(biases);
  }
  result.adapter = adapter_of(prefix, parts, result);
  return result;
}

const Parameter* Parameters::try_find(const std::string& name) const {
  for (const Parameter& p : parameters_)
    if (p.name == name) return &p;
  return nullptr;
}

const Parameter& Parameters::find(const std::string& name) const {
  if (const Parameter* p = try_find(name)) return *p;
  throw CodedError("ERR_UNKNOWN_PARAMETER", "the model has no parameter named " + name);
}

std::vector<Linear*> Parameters::linears() {
  std::vector<Linear*> result;
  for (size_t i = 0; i < layers.size(); i++) {
    LayerParameters& layer = layers[i];
    if (i + 1 < layers.size()) {
      result.push_back(&layer.qkv);
    } else {
      result.push_back(&layer.q);
      result.push_back(&layer.kv);
    }
    result.insert(result.end(), {&layer.o, &layer.gate_up, &layer.down});
  }
  result.push_back(&head);
  return result;
}

}  // namespace tunesmith
