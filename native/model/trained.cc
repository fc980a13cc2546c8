// Which parameters train: their groups, their gradients, and how far down backward has to go for them.
#include <algorithm>
#include <unordered_map>

#include "core/error.h"
#include "model/parameters.h"

namespace tunesmith {

namespace {

void choose_rows(Parameter& p, const std::optional<std::pair<int64_t, int64_t>>& rows) {
  p.trained_first = 0;
  p.trained_count = p.length();
  if (!rows) return;
  const auto [first, count] = *rows;
  if (p.name != "embedding.weight" && p.name != "head.weight" && p.name != "head.bias")
    throw CodedError("ERR_INVALID_ARGUMENT", "parameter " + p.name + " cannot train in part");
  if (first < 0 || count < 1 || first > p.length() - count)
    throw CodedError("ERR_INVALID_ARGUMENT", "rows " + std::to_string(first) + " to " + std::to_string(first + count) +
                                                 " are outside the " + std::to_string(p.length()) + " of " + p.name);
  p.trained_first = first;
  p.trained_count = count;
}

}  // namespace

// Gives every parameter its group and every trained one its place among the gradients.
void Parameters::assign_groups() {
  if (!options_.training) return;
  if (options_.trainable) {
    groups = *options_.trainable;
    std::unordered_map<std::string, Parameter*> by_name;
    for (Parameter& p : parameters_) by_name[p.name] = &p;
    for (size_t group = 0; group < groups.size(); group++) {
      for (const std::string& name : groups[group].names) {
        const auto found = by_name.find(name);
        if (found == by_name.end())
          throw CodedError("ERR_UNKNOWN_PARAMETER", "the model has no parameter named " + name + " to train");
        if (found->second->trained())
          throw CodedError("ERR_INVALID_ARGUMENT", "parameter " + name + " is in two groups of trainable");
        found->second->group = int(group);
        choose_rows(*found->second, groups[group].rows);
      }
    }
  } else {
    groups = {ParameterGroup{}};
    for (Parameter& p : parameters_) {
      p.group = options_.adapters.modules.empty() || is_adapter(p.name) ? 0 : -1;
      choose_rows(p, {});
    }
  }
  for (Parameter& p : parameters_) {
    if (!p.trained()) continue;
    if (p.quantized())
      throw CodedError("ERR_INVALID_ARGUMENT", "parameter " + p.name + " is quantised and cannot train");
    p.grad_offset = trained_size_[p.is_vector];
    trained_size_[p.is_vector] += p.trained_value().size();
  }
  if (trained_size_[0] + trained_size_[1] == 0)
    throw CodedError("ERR_INVALID_ARGUMENT", "trainable names no parameter: nothing would be trained");
}

void Parameters::attach_views() {
  const int64_t width = int64_t(size_of(wide(compute_)));
  const auto at = [&](const Tensor& whole, int64_t offset) { return static_cast<char*>(whole.data) + offset * width; };
  for (Parameter& p : parameters_) {
    if (!p.quantized()) p.value.data = at(values_[p.is_vector], p.offset);
    if (!p.trained()) continue;
    p.grad = p.trained_value();
    p.grad.data = at(grads_[p.is_vector], p.grad_offset);
    p.grad.stride = p.grad.cols;
  }
}

// Neighbouring parts of a joined matrix or bias that train, as few runs: one where all of it does.
std::vector<TrainedRows> Parameters::trained_rows(const std::vector<std::string>& names) const {
  std::vector<TrainedRows> runs;
  int64_t first = 0;
  for (const std::string& name : names) {
    const Parameter& p = find(name);
    const int64_t start = first + p.trained_first;
    if (p.trained()) {
      if (runs.empty() || runs.back().first + runs.back().count != start) runs.push_back({start, 0, p.grad});
      TrainedRows& run = runs.back();
      run.count += p.trained_count;
      run.grad = p.is_vector ? vector(run.grad.data, run.grad.dtype, run.count)
                             : matrix(run.grad.data, run.grad.dtype, run.count, p.grad.cols);
    }
    first += p.length();
  }
  return runs;
}

bool Parameters::trains(const std::string& prefix) const {
  return std::any_of(parameters_.begin(), parameters_.end(),
                     [&](const Parameter& p) { return p.trained() && p.name.starts_with(prefix); });
}

int64_t Parameters::block_of(const std::string& name) const {
  constexpr std::string_view kLayers = "layers.";
  if (name.starts_with(kLayers)) {
    size_t end = 0;
    const int64_t layer = std::stoll(name.substr(kLayers.size()), &end);
    return name.substr(kLayers.size() + end).starts_with(".mlp") ? mlp_block(layer) : attention_block(layer);
  }
  if (name.starts_with("final_norm.")) return final_norm_block(spec_.layers);
  if (name.starts_with("head.")) return head_block(spec_.layers);
  return kEmbeddingBlock;
}

// A matmul's input needs a gradient only where something before it trains.
void Parameters::find_input_gradients() {
  lowest_block = head_block(spec_.layers) + 1;
  for (const Parameter& p : parameters_)
    if (p.trained()) lowest_block = std::min(lowest_block, block_of(p.name));
  for (size_t i = 0; i < layers.size(); i++) {
    LayerParameters& layer = layers[i];
    const std::string name = "layers." + std::to_string(i) + ".", attention = name + "attention.";
    const bool before_attention = lowest_block < attention_block(int64_t(i)) || trains(name + "attention_norm.");
    for (Linear* linear : {&layer.q, &layer.kv, &layer.qkv}) linear->input_gradient = before_attention;
    layer.o.input_gradient =
        before_attention || trains(attention + "q") || trains(attention + "k") || trains(attention + "v");
    layer.gate_up.input_gradient = lowest_block < mlp_block(int64_t(i)) || trains(name + "mlp_norm.");
    layer.down.input_gradient = layer.gate_up.input_gradient || trains(name + "mlp.gate") || trains(name + "mlp.up");
  }
  head.input_gradient = lowest_block < head_block(spec_.layers);
}

}  // namespace tunesmith
