#include "addon/convert.h"

#include <algorithm>

namespace tunesmith {

namespace {

[[noreturn]] void refuse(const std::string& text) { throw CodedError("ERR_INVALID_ARGUMENT", text); }

double number(Napi::Object object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (!value.IsNumber()) refuse(std::string(key) + " is not a number");
  return value.As<Napi::Number>().DoubleValue();
}

int64_t integer(Napi::Object object, const char* key) {
  const double value = number(object, key);
  if (!(value >= 0 && value <= 9007199254740991.0) || value != double(int64_t(value)))
    refuse(std::string(key) + " is not a whole number from 0 up");
  return int64_t(value);
}

bool boolean(Napi::Object object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (!value.IsBoolean()) refuse(std::string(key) + " is not a boolean");
  return value.As<Napi::Boolean>().Value();
}

std::string text(Napi::Object object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (!value.IsString()) refuse(std::string(key) + " is not a string");
  return value.As<Napi::String>().Utf8Value();
}

Napi::Object object(Napi::Object parent, const char* key) {
  const Napi::Value value = parent.Get(key);
  if (!value.IsObject()) refuse(std::string(key) + " is not an object");
  return value.As<Napi::Object>();
}

template <class T>
std::vector<T> elements(Napi::Object parent, const char* key, napi_typedarray_type type) {
  const Napi::Value value = parent.Get(key);
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != type)
    refuse(std::string(key) + " is not a typed array of the right type");
  const auto array = value.As<Napi::TypedArrayOf<T>>();
  return {array.Data(), array.Data() + array.ElementLength()};
}

// One of `names`, as the enumerator at the same place.
template <class Enum>
Enum choice(Napi::Object object, const char* key, std::initializer_list<const char*> names) {
  const std::string value = text(object, key);
  int index = 0;
  std::string list;
  for (const char* name : names) {
    if (value == name) return Enum(index);
    list += (index++ ? ", '" : "'") + std::string(name) + "'";
  }
  refuse(std::string(key) + " is '" + value + "'; one of " + list + " is supported");
}

std::vector<RopeTable> rope_tables(Napi::Object parent) {
  const Napi::Value value = parent.Get("ropes");
  if (!value.IsArray()) refuse("ropes is not an array");
  const Napi::Array array = value.As<Napi::Array>();
  std::vector<RopeTable> tables;
  for (uint32_t i = 0; i < array.Length(); i++) {
    const Napi::Value entry = array.Get(i);
    if (!entry.IsObject()) refuse("ropes[" + std::to_string(i) + "] is not an object");
    const Napi::Object table = entry.As<Napi::Object>();
    tables.push_back({elements<double>(table, "inverseFrequencies", napi_float64_array), number(table, "scale")});
  }
  return tables;
}

DecoderSpec decoder_spec(Napi::Object in) {
  DecoderSpec spec;
  spec.vocab_size = integer(in, "vocabSize");
  spec.hidden_size = integer(in, "hiddenSize");
  spec.layers = integer(in, "layers");
  spec.heads = int32_t(integer(in, "heads"));
  spec.kv_heads = int32_t(integer(in, "kvHeads"));
  spec.head_dim = int32_t(integer(in, "headDim"));
  spec.intermediate_size = integer(in, "intermediateSize");
  spec.max_positions = integer(in, "maxPositions");
  spec.norm = choice<NormKind>(in, "norm", {"rms", "layer"});
  spec.norm_epsilon = number(in, "normEpsilon");
  spec.norm_unit_offset = boolean(in, "normUnitOffset");
  spec.norm_bias = boolean(in, "normBias");
  spec.block_norms = choice<BlockNorms>(in, "blockNorms", {"pre", "post", "pre+post"});
  spec.parallel_residual = boolean(in, "parallelResidual");
  spec.qk_norm = choice<QkNorm>(in, "qkNorm", {"none", "head", "full"});
  spec.attention_bias = boolean(in, "attentionBias");
  spec.attention_output_bias = boolean(in, "attentionOutputBias");
  spec.attention_scale = number(in, "attentionScale");
  spec.attention_softcap = number(in, "attentionSoftcap");
  spec.layer_windows = elements<int32_t>(in, "layerWindows", napi_int32_array);
  spec.ropes = rope_tables(in);
  spec.layer_ropes = elements<int32_t>(in, "layerRopes", napi_int32_array);
  spec.rotary_dim = int32_t(integer(in, "rotaryDim"));
  spec.long_rope_threshold = integer(in, "longRopeThreshold");
  spec.mlp = choice<MlpKind>(in, "mlp", {"gated", "plain"});
  spec.activation = choice<Activation>(in, "activation", {"silu", "gelu", "gelu_tanh", "relu"});
  spec.mlp_bias = boolean(in, "mlpBias");
  spec.tied_embeddings = boolean(in, "tiedEmbeddings");
  spec.head_bias = boolean(in, "headBias");
  spec.embedding_scale = number(in, "embeddingScale");
  spec.learned_positions = integer(in, "learnedPositions");
  spec.residual_scale = number(in, "residualScale");
  spec.logit_scale = number(in, "logitScale");
  spec.logit_softcap = number(in, "logitSoftcap");
  spec.validate();
  return spec;
}

AdapterOptions adapter_options(Napi::Object in) {
  AdapterOptions options;
  options.dora = boolean(in, "dora");
  options.dropout = number(in, "dropout");
  if (!(options.dropout >= 0 && options.dropout < 1)) refuse("dropout is not from 0 to below 1");
  if (!in.Get("modules").IsArray()) refuse("modules is not a list");
  const auto list = in.Get("modules").As<Napi::Array>();
  for (uint32_t i = 0; i < list.Length(); i++) {
    if (!list.Get(i).IsObject()) refuse("an entry of modules is not an object");
    const auto entry = list.Get(i).As<Napi::Object>();
    options.modules.push_back({text(entry, "name"), {}, integer(entry, "rank"), number(entry, "scale")});
    if (!entry.Get("parts").IsArray()) refuse("parts is not a list");
    const auto parts = entry.Get("parts").As<Napi::Array>();
    for (uint32_t part = 0; part < parts.Length(); part++) {
      if (!parts.Get(part).IsString()) refuse("parts has an entry that is not a string");
      options.modules.back().parts.push_back(parts.Get(part).As<Napi::String>().Utf8Value());
    }
  }
  return options;
}

Objective training_objective(Napi::Object in) {
  return {number(in, "labelSmoothing"), number(in, "zLoss"), boolean(in, "dft")};
}

RandomOptions random_options(Napi::Object in) {
  const std::vector<double> residual = elements<double>(in, "residualDropout", napi_float64_array);
  if (residual.size() != 2) refuse("residualDropout is not two numbers");
  RandomOptions options{number(in, "neftuneAlpha"), number(in, "embeddingDropout"), {residual[0], residual[1]}};
  for (const double rate : {options.embedding_dropout, residual[0], residual[1]})
    if (!(rate >= 0 && rate < 1)) refuse("a dropout is not from 0 to below 1");
  return options;
}

OptimizerRule optimizer_rule(const std::string& name) {
  constexpr std::pair<const char*, OptimizerRule> kRules[] = {
      {"adamw", OptimizerRule::kAdamW},       {"adamw-8bit", OptimizerRule::kAdamW8bit},
      {"lion", OptimizerRule::kLion},         {"adafactor", OptimizerRule::kAdafactor},
      {"muon", OptimizerRule::kMuon},         {"sgd", OptimizerRule::kSgd},
      {"momentum", OptimizerRule::kMomentum},
  };
  for (const auto& [known, rule] : kRules)
    if (name == known) return rule;
  refuse("optimizer '" + name + "' does not exist");
}

std::vector<ParameterGroup> parameter_groups(const Napi::Value& value) {
  if (!value.IsArray()) refuse("trainable is not a list of groups");
  const auto list = value.As<Napi::Array>();
  std::vector<ParameterGroup> groups(list.Length());
  for (uint32_t i = 0; i < list.Length(); i++) {
    if (!list.Get(i).IsObject()) refuse("a group of trainable is not an object");
    const auto in = list.Get(i).As<Napi::Object>();
    if (!in.Get("names").IsArray()) refuse("names is not a list");
    const auto names = in.Get("names").As<Napi::Array>();
    for (uint32_t n = 0; n < names.Length(); n++) {
      if (!names.Get(n).IsString()) refuse("names has an entry that is not a string");
      groups[i].names.push_back(names.Get(n).As<Napi::String>().Utf8Value());
    }
    if (!in.Get("rows").IsUndefined()) {
      const std::vector<int32_t> rows = elements<int32_t>(in, "rows", napi_int32_array);
      if (rows.size() != 2) refuse("rows is not two numbers");
      groups[i].rows = {rows[0], rows[1]};
    }
    if (!in.Get("learningRateScale").IsUndefined()) groups[i].learning_rate_scale = number(in, "learningRateScale");
    if (!in.Get("weightDecay").IsUndefined()) groups[i].weight_decay = number(in, "weightDecay");
  }
  return groups;
}

}  // namespace

DType storage_type(const std::string& name) {
  for (const DType type : {DType::kFloat64, DType::kFloat32, DType::kBFloat16, DType::kFloat16})
    if (name == name_of(type)) return type;
  refuse("'" + name + "' is not a storage type; one of float64, float32, bfloat16, float16 is");
}

EngineOptions engine_options(Napi::Object in) {
  EngineOptions options;
  options.backend = text(in, "backend");
  options.threads = int(integer(in, "threads"));
  options.profile = in.Get("profile").ToBoolean();
  options.spec = decoder_spec(object(in, "spec"));
  options.decoder.compute = storage_type(text(in, "compute"));
  options.decoder.training = boolean(in, "training");
  options.optimizer = optimizer_rule(text(in, "optimizer"));
  if (!in.Get("objective").IsUndefined()) options.decoder.objective = training_objective(object(in, "objective"));
  if (!in.Get("random").IsUndefined()) options.decoder.random = random_options(object(in, "random"));
  if (const Napi::Value trainable = in.Get("trainable"); !trainable.IsUndefined())
    options.decoder.trainable = parameter_groups(trainable);
  if (!in.Get("adapters").IsUndefined()) options.decoder.adapters = adapter_options(object(in, "adapters"));
  if (!in.Get("quantization").IsUndefined()) {
    const std::string quantization = text(in, "quantization");
    if (quantization != "nf4") refuse("quantization is '" + quantization + "'; 'nf4' is supported");
    const bool doubled = boolean(in, "doubleQuantization");
    options.decoder.quantization = doubled ? Quantization::kNf4Doubled : Quantization::kNf4;
    options.decoder.dequantized = in.Get("dequantized").ToBoolean();
  }
  options.decoder.recompute = boolean(in, "recompute");
  options.decoder.limits = {integer(in, "maxTokens"), integer(in, "maxSupervised"), integer(in, "maxSequences")};
  options.decoder.cache_tokens = integer(in, "cacheTokens");
  if (!in.Get("cacheSequences").IsUndefined()) options.decoder.cache_sequences = integer(in, "cacheSequences");
  return options;
}

MicroBatch micro_batch(Napi::Object in) {
  std::vector<int32_t> numbers;
  if (!in.Get("numbers").IsUndefined()) numbers = elements<int32_t>(in, "numbers", napi_int32_array);
  return {elements<int32_t>(in, "tokens", napi_int32_array),    elements<int32_t>(in, "positions", napi_int32_array),
          elements<int32_t>(in, "cuSeqlens", napi_int32_array), elements<int32_t>(in, "targets", napi_int32_array),
          elements<float>(in, "weights", napi_float32_array),   std::move(numbers)};
}

std::optional<StepRandom> step_random(const Napi::Value& value) {
  if (value.IsUndefined()) return std::nullopt;
  if (!value.IsObject()) refuse("random is not an object");
  const auto in = value.As<Napi::Object>();
  return StepRandom{uint64_t(integer(in, "seed")), uint64_t(integer(in, "step"))};
}

OptimizerStep optimizer_options(Napi::Object in) {
  const double momentum = in.Get("momentum").IsUndefined() ? 0 : number(in, "momentum");
  return {number(in, "learningRate"), number(in, "beta1"),       number(in, "beta2"), number(in, "epsilon"), momentum,
          number(in, "weightDecay"),  number(in, "maxGradNorm"), integer(in, "step")};
}

std::vector<CacheSpan> cache_spans(Napi::Object in) {
  const auto tokens = elements<int32_t>(in, "tokens", napi_int32_array);
  const auto ends = elements<int32_t>(in, "cuSeqlens", napi_int32_array);
  const auto slots = elements<int32_t>(in, "slots", napi_int32_array);
  const auto positions = elements<int32_t>(in, "positions", napi_int32_array);
  if (ends.size() != slots.size() + 1 || positions.size() != slots.size() || ends.front() != 0 ||
      ends.back() != int32_t(tokens.size()) || !std::is_sorted(ends.begin(), ends.end()))
    refuse("cuSeqlens, slots and positions do not describe the same sequences");
  std::vector<CacheSpan> spans;
  for (size_t i = 0; i < slots.size(); i++)
    spans.push_back({slots[i], positions[i], {tokens.begin() + ends[i], tokens.begin() + ends[i + 1]}});
  return spans;
}

Napi::Object memory_plan(Napi::Env env, const Arena& arena) {
  constexpr const char* kNames[] = {"parameters",  "quantized", "prepared", "gradients", "optimizer",
                                    "activations", "logits",    "scratch",  "cache"};
  static_assert(std::size(kNames) == size_t(MemoryKind::kCount));
  Napi::Object plan = Napi::Object::New(env);
  for (size_t i = 0; i < std::size(kNames); i++) plan.Set(kNames[i], double(arena.bytes(MemoryKind(i))));
  plan.Set("total", double(arena.total()));
  return plan;
}

Napi::Object loss_sums(Napi::Env env, const LossSums& sums) {
  Napi::Object result = Napi::Object::New(env);
  result.Set("loss", sums.loss);
  result.Set("weight", sums.weight);
  result.Set("supervised", double(sums.supervised));
  result.Set("correct", double(sums.correct));
  const auto numbers = [env](const std::vector<double>& values) {
    Napi::Float64Array array = Napi::Float64Array::New(env, values.size());
    std::copy(values.begin(), values.end(), array.Data());
    return array;
  };
  result.Set("perSequence", numbers(sums.per_sequence));
  if (!sums.nll.empty()) result.Set("nll", numbers(sums.nll));
  return result;
}

Napi::Error error_with_code(Napi::Env env, const std::string& code, const std::string& text) {
  Napi::Error error = Napi::Error::New(env, text);
  error.Set("code", code);
  return error;
}

}  // namespace tunesmith
