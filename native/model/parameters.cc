#include "model/parameters.h"

#include "core/error.h"

namespace tunesmith {

Parameters::Parameters(const DecoderSpec& spec, DType compute, const TrainingOptions& options, const Backend& backend,
                       Arena& arena)
    : spec_(spec), compute_(compute), options_(options) {
  const int64_t hidden = spec.hidden_size, q = spec.q_size(), kv = spec.kv_size(), inner = spec.intermediate_size;
  add("embedding.weight", false, spec.vocab_size, hidden);
  if (!spec.tied_embeddings) add("head.weight", false, spec.vocab_size, hidden);
  for (int64_t i = 0; i < spec.layers; i++) {
    const std::string layer = "layers." + std::to_string(i) + ".";
    add(layer + "attention_norm.weight", true, 1, hidden);
    add(layer + "attention.q.weight", false, q, hidden);
    add(layer + "attention.k.weight", false, kv, hidden);
    add(layer + "attention.v.weight", false, kv, hidden);
    if (spec.attention_bias) {
      add(layer + "attention.q.bias", true, 1, q);
      add(layer + "attention.k.bias", true, 1, kv);
      add(layer + "attention.v.bias", true, 1, kv);
    }
    add(layer + "attention.o.weight", false, hidden, q);
    if (spec.attention_output_bias) add(layer + "attention.o.bias", true, 1, hidden);
    add(layer + "mlp_norm.weight", true, 1, hidden);
    add(layer + "mlp.gate.weight", false, inner, hidden);
    add(layer + "mlp.up.weight", false, inner, hidden);
    add(layer + "mlp.down.weight", false, hidden, inner);
    if (spec.mlp_bias) {
      add(layer + "mlp.gate.bias", true, 1, inner);
      add(layer + "mlp.up.bias", true, 1, inner);
      add(layer + "mlp.down.bias", true, 1, hidden);
    }
  }
  add("final_norm.weight", true, 1, hidden);
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
  if (options_.quantization != Quantization::kNone && !is_vector && name.starts_with("layers.") &&
      name.ends_with(".weight")) {
    parameters_.back().nf4 = int(nf4_.size());
    nf4_.push_back({rows, cols});
  } else {
    size += rows * cols;
  }
}

void Parameters::reserve_quantized(Arena& arena) {
  const bool doubled = options_.quantization == Quantization::kNf4Doubled;
  for (Nf4Matrix& m : nf4_) {
    arena.reserve_array(MemoryKind::kQuantized, m.codes, (m.size() + 1) / 2);
    arena.reserve_array(MemoryKind::kQuantized, m.absmax, doubled ? m.groups() : m.blocks());
    if (!doubled) continue;
    arena.reserve_array(MemoryKind::kQuantized, m.scale_codes, m.blocks());
    arena.reserve_array(MemoryKind::kQuantized, m.offset, 1);
  }
}

void Parameters::attach() {
  attach_views();
  const int64_t hidden = spec_.hidden_size;
  const auto norm = [&](const std::string& name, Tensor& value, Tensor& grad) {
    value = joined(name, hidden);
    if (const Parameter& p = find(name); p.trained()) grad = vector(p.grad.data, p.grad.dtype, hidden);
  };
  layers.resize(size_t(spec_.layers));
  for (size_t i = 0; i < layers.size(); i++) {
    LayerParameters& layer = layers[i];
    const std::string name = "layers." + std::to_string(i) + ".";
    norm(name + "attention_norm.weight", layer.attention_norm, layer.attention_norm_grad);
    norm(name + "mlp_norm.weight", layer.mlp_norm, layer.mlp_norm_grad);
    if (i + 1 < layers.size()) {
      layer.qkv = linear(name + "attention.", {"q", "k", "v"});
    } else {
      layer.q = linear(name + "attention.", {"q"});
      layer.kv = linear(name + "attention.", {"k", "v"});
    }
    layer.o = linear(name + "attention.", {"o"});
    layer.gate_up = linear(name + "mlp.", {"gate", "up"});
    layer.down = linear(name + "mlp.", {"down"});
  }
  norm("final_norm.weight", final_norm, final_norm_grad);
  const Parameter& table = find("embedding.weight");
  embedding = table.value;
  embedding_grad = table.grad;
  const std::string output = spec_.tied_embeddings ? "embedding.weight" : "head.weight";
  head.weight.master = find(output).value;
  head.weight.compute = compute_;
  head.trained = trained_rows({output});
  find_input_gradients();

  const std::vector<Linear*> all_linears = linears();
  for (size_t i = 0; i < prepared_.size(); i++) all_linears[i]->weight.prepared = prepared_[i];
  if (options_.training)
    for (Linear* linear : all_linears) linear->use = linear->trained.empty() ? LinearUse::kFrozen : LinearUse::kTrained;
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
