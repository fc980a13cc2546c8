// Named parameters as views of few large tensors. Matrices that are read together lie together ([q; k; v], [gate; up]),
// so that one matmul serves them; matrices lie apart from vectors. What trains has a gradient; gradients are laid in
// the same order without gaps.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "core/arena.h"
#include "model/adapters.h"
#include "model/quantized.h"
#include "model/spec.h"

namespace tunesmith {

struct Parameter {
  std::string name;
  bool is_vector;
  bool decays;
  int group;            // into Parameters::groups; -1: frozen, without gradient and optimizer state
  int64_t offset;       // elements into the matrices or the vectors
  int64_t grad_offset;  // elements into those of them that train
  Tensor value;         // wide; a shape without data where quantised
  Tensor grad;          // wide, of what trains of it; empty where frozen
  int nf4 = -1;         // into the quantised matrices; -1: not quantised
  // Where only some rows of a matrix, or elements of a vector, train: [trained_first, trained_first + trained_count).
  int64_t trained_first = 0, trained_count = 0;

  bool trained() const { return group >= 0; }
  int64_t length() const { return is_vector ? value.cols : value.rows; }
  bool trained_whole() const { return trained() && trained_count == length(); }
  Tensor trained_value() const {
    return is_vector ? value.slice_cols(trained_first, trained_count) : value.slice_rows(trained_first, trained_count);
  }
  bool quantized() const { return nf4 >= 0; }
};

// Parameters that train alike.
struct ParameterGroup {
  std::vector<std::string> names;
  std::optional<std::pair<int64_t, int64_t>> rows;  // first and number of the rows that train; absent: all
  double learning_rate_scale = 1;                   // multiplies the step's learning rate
  std::optional<double> weight_decay;  // of every parameter here; absent: the step's for matrices, none for vectors
};

// How the matrices of the layers are kept that do not train: as they are, or as NF4 (core/nf4.h). Embedding, head and
// norms are never quantised.
enum class Quantization : uint8_t { kNone, kNf4, kNf4Doubled };

struct TrainingOptions {
  bool training = false;
  std::optional<std::vector<ParameterGroup>> trainable;  // absent: the adapters, else every parameter, in one group
  AdapterOptions adapters;
  Quantization quantization = Quantization::kNone;
  bool dequantized = false;  // quantised as they are written, but kept as floats: what quantisation leaves of them
};

// One matmul of the model and the gradients of those of its rows that train.
struct Linear {
  LinearWeight weight;
  Tensor bias;  // [N], empty where the model has none
  std::vector<TrainedRows> trained, trained_bias;
  bool input_gradient = false;  // something before this matmul trains
  LinearUse use = LinearUse::kInference;
  LinearAdapter* adapter = nullptr;
};

// A norm. Without weights the model has none there.
struct Norm {
  Tensor weight, bias;            // [H], of q and k per head [D]; bias empty where the model has none
  Tensor weight_grad, bias_grad;  // empty where frozen

  explicit operator bool() const { return bool(weight); }
};

// Blocks of the model in the order of forward: backward ends at the lowest one that trains.
constexpr int64_t kEmbeddingBlock = 0;
constexpr int64_t attention_block(int64_t layer) { return 1 + 2 * layer; }
constexpr int64_t mlp_block(int64_t layer) { return 2 + 2 * layer; }
constexpr int64_t final_norm_block(int64_t layers) { return 1 + 2 * layers; }
constexpr int64_t head_block(int64_t layers) { return 2 + 2 * layers; }

struct LayerParameters {
  Norm attention_norm, mlp_norm;            // of each block's input
  Norm attention_post_norm, mlp_post_norm;  // of what it adds
  Norm q_norm, k_norm;
  Linear q, kv;             // last layer only: it projects queries of fewer rows than keys
  Linear qkv;               // every other layer
  Linear o, gate_up, down;  // gate_up is up alone where the MLP has no gate
};

class Parameters {
 public:
  // Throws ERR_UNKNOWN_PARAMETER or ERR_INVALID_ARGUMENT for groups that do not fit the model.
  Parameters(const DecoderSpec& spec, DType compute, const TrainingOptions& options, const Backend& backend,
             Arena& arena);
  Parameters(const Parameters&) = delete;

  // Call once the arena is bound: turns offsets into views.
  void attach();

  const Parameter& find(const std::string& name) const;  // throws ERR_UNKNOWN_PARAMETER
  const std::vector<Parameter>& all() const { return parameters_; }
  std::vector<Linear*> linears();
  const AdapterOptions& adapters() const { return options_.adapters; }
  LinearUse adapter_use() const { return options_.training ? LinearUse::kTrained : LinearUse::kInference; }

  // Elements [offset, offset + count) of a parameter or its gradient, from and to host values of any float type. What
  // is quantised is quantised as it comes and read as matmuls read it; it must be written whole before check_filled().
  // Throw ERR_UNKNOWN_PARAMETER, ERR_INVALID_ARGUMENT outside its range, ERR_INVALID_WEIGHTS for what cannot be
  // quantised.
  void write(Backend& backend, const std::string& name, int64_t offset, DType type, const void* values, int64_t count);
  std::vector<uint8_t> read(Backend& backend, const std::string& name, bool gradient, int64_t offset, int64_t count,
                            DType type) const;
  void check_filled() const;

  std::vector<ParameterGroup> groups;

  // The lowest block with a parameter that trains; without training above every block.
  int64_t lowest_block = 0;

  // Everything that trains: gradients of matrices and of vectors.
  Tensor matrix_grads() const { return grads_[0]; }
  Tensor vector_grads() const { return grads_[1]; }

  std::vector<LayerParameters> layers;
  Tensor embedding, embedding_grad;                    // [V, H]
  Tensor position_embedding, position_embedding_grad;  // [P, H], empty where positions are not learned
  Norm final_norm;
  Linear head;  // [V, H]; shares the embedding when tied

  // Width of what the MLP's first matmul makes: gates and ups, or ups alone.
  int64_t mlp_width() const { return (spec_.mlp == MlpKind::kGated ? 2 : 1) * spec_.intermediate_size; }

  int64_t largest_n = 0, largest_k = 0;

 private:
  void add(const std::string& name, bool is_vector, int64_t rows, int64_t cols);
  bool quantizes(const Parameter& parameter) const;
  void reserve_quantized(Arena& arena);
  void quantize(Backend& backend, const Parameter& parameter, int64_t offset, const float* values, int64_t count);
  void dequantize(Backend& backend, const Parameter& parameter, const Nf4Matrix& matrix);
  void add_norm(const std::string& name, int64_t width);
  void add_layer(const std::string& prefix);
  Norm norm(const std::string& name) const;
  void assign_groups();
  void attach_views();
  Tensor joined(const std::string& first, int64_t rows) const;
  Linear linear(const std::string& prefix, const std::vector<std::string>& parts);
  // lora.cc
  void add_adapters();
  LinearAdapter* adapter_of(const std::string& prefix, const std::vector<std::string>& parts, const Linear& linear);
  void reserve_adapters(const Backend& backend, Arena& arena);
  std::vector<TrainedRows> trained_rows(const std::vector<std::string>& names) const;
  const Parameter* try_find(const std::string& name) const;
  bool trains(const std::string& prefix) const;
  int64_t block_of(const std::string& name) const;
  void find_input_gradients();

  DecoderSpec spec_;
  DType compute_;
  TrainingOptions options_;
  // Of matrices and of vectors.
  int64_t size_[2] = {0, 0}, trained_size_[2] = {0, 0};
  Tensor values_[2], grads_[2];
  std::vector<Parameter> parameters_;
  std::vector<void*> prepared_;                    // per linear, in the order of linears()
  std::map<std::string, LinearAdapter> adapters_;  // by the first projection of their matmul
  std::vector<Nf4Matrix> nf4_;                     // in the order of parameters_
  // Quantised parameters that are being written; with memory for those that are kept as floats.
  struct Filling {
    std::unique_ptr<Nf4Memory> memory;
    Nf4Filling filling;
  };
  std::map<std::string, Filling> filling_;
};

}  // namespace tunesmith
