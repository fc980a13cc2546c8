#include "addon/engine.h"

#include "backend/loader.h"

namespace tunesmith {

namespace {

std::string string_argument(const Napi::CallbackInfo& info, size_t index, const char* name) {
  if (!info[index].IsString()) throw CodedError("ERR_INVALID_ARGUMENT", std::string(name) + " is not a string");
  return info[index].As<Napi::String>().Utf8Value();
}

double number_argument(const Napi::CallbackInfo& info, size_t index, const char* name) {
  if (!info[index].IsNumber()) throw CodedError("ERR_INVALID_ARGUMENT", std::string(name) + " is not a number");
  return info[index].As<Napi::Number>().DoubleValue();
}

Napi::Object object_argument(const Napi::CallbackInfo& info, size_t index, const char* name) {
  if (!info[index].IsObject()) throw CodedError("ERR_INVALID_ARGUMENT", std::string(name) + " is not an object");
  return info[index].As<Napi::Object>();
}

Napi::Value floats(Napi::Env env, const std::vector<float>& values) {
  Napi::Float32Array result = Napi::Float32Array::New(env, values.size());
  std::copy(values.begin(), values.end(), result.Data());
  return result;
}

}  // namespace

Napi::Function Engine::define(Napi::Env env) {
  return DefineClass(env, "Engine",
                     {
                         InstanceAccessor<&Engine::plan>("plan"),
                         InstanceAccessor<&Engine::unplanned>("unplanned"),
                         InstanceMethod<&Engine::parameters>("parameters"),
                         InstanceMethod<&Engine::write>("write"),
                         InstanceMethod<&Engine::read>("read"),
                         InstanceMethod<&Engine::read_gradient>("readGradient"),
                         InstanceMethod<&Engine::commit>("commit"),
                         InstanceMethod<&Engine::initialize>("initialize"),
                         InstanceMethod<&Engine::initialize_adapters>("initializeAdapters"),
                         InstanceMethod<&Engine::merge_adapters>("mergeAdapters"),
                         InstanceMethod<&Engine::accumulate>("accumulate"),
                         InstanceMethod<&Engine::optimizer_step>("optimizerStep"),
                         InstanceMethod<&Engine::evaluate>("evaluate"),
                         InstanceMethod<&Engine::logits>("logits"),
                         InstanceMethod<&Engine::extend>("extend"),
                         InstanceMethod<&Engine::extend_all>("extendAll"),
                         InstanceMethod<&Engine::profile>("profile"),
                         InstanceMethod<&Engine::cancel>("cancel"),
                         InstanceMethod<&Engine::close>("close"),
                     });
}

Engine::Engine(const Napi::CallbackInfo& info) : ObjectWrap(info) {
  guarded(info.Env(), [&] {
    const EngineOptions options = engine_options(object_argument(info, 0, "options"));
    backend_ = create_backend(options.backend, options.threads);
    if (options.profile) {
      auto profiled = std::make_unique<ProfiledBackend>(std::move(backend_));
      profiled_ = profiled.get();
      backend_ = std::move(profiled);
    }
    decoder_ = std::make_unique<Decoder>(options.spec, options.decoder, *backend_, arena_);
    if (options.decoder.training)
      optimizer_ = std::make_unique<Optimizer>(options.optimizer, *decoder_, *backend_, arena_);
    memory_ = backend_->allocate(arena_.total());
    arena_.bind(memory_);
    worker_ = std::make_unique<Worker>(info.Env());
    // Memory is first touched, and the backend's threads are first used, on the thread that will work with them.
    worker_->post_first([this] {
      decoder_->attach();
      if (optimizer_) optimizer_->attach();
    });
  });
}

void Engine::shut_down() {
  worker_.reset();
  optimizer_.reset();
  decoder_.reset();
  if (memory_) backend_->release(std::exchange(memory_, nullptr));
}

Napi::Value Engine::plan(const Napi::CallbackInfo& info) { return memory_plan(info.Env(), arena_); }

Napi::Value Engine::unplanned(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), double(backend_->unplanned_bytes()));
}

Napi::Value Engine::parameters(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    if (!decoder_) throw CodedError("ERR_CLOSED", "the engine is closed");
    const std::vector<Parameter>& all = decoder_->parameters().all();
    Napi::Array result = Napi::Array::New(info.Env(), all.size());
    for (uint32_t i = 0; i < all.size(); i++) {
      Napi::Object entry = Napi::Object::New(info.Env());
      Napi::Array shape = Napi::Array::New(info.Env());
      uint32_t axis = 0;
      if (!all[i].is_vector) shape.Set(axis++, double(all[i].value.rows));
      shape.Set(axis, double(all[i].value.cols));
      entry.Set("name", all[i].name);
      entry.Set("shape", shape);
      entry.Set("decays", all[i].decays);
      entry.Set("trained", all[i].trained());
      result.Set(i, entry);
    }
    return result;
  });
}

Napi::Value Engine::write(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const std::string name = string_argument(info, 0, "name");
    const int64_t offset = int64_t(number_argument(info, 1, "offset"));
    const DType type = storage_type(string_argument(info, 2, "type"));
    if (!info[3].IsTypedArray()) throw CodedError("ERR_INVALID_ARGUMENT", "bytes is not a Uint8Array");
    const auto array = info[3].As<Napi::Uint8Array>();
    if (array.ByteLength() % size_of(type))
      throw CodedError("ERR_INVALID_ARGUMENT",
                       std::to_string(array.ByteLength()) + " bytes are no whole number of " + name_of(type));
    // Copied: the caller may reuse or detach its buffer while the thread is busy.
    std::vector<uint8_t> bytes(array.Data(), array.Data() + array.ByteLength());
    return post([this, name, offset, type, bytes = std::move(bytes)]() -> Worker::Result {
      const int64_t count = int64_t(bytes.size() / size_of(type));
      decoder_->parameters().write(*backend_, name, offset, type, bytes.data(), count);
      return [](Napi::Env env) { return env.Undefined(); };
    });
  });
}

Napi::Value Engine::read(const Napi::CallbackInfo& info) { return read_tensor(info, false); }
Napi::Value Engine::read_gradient(const Napi::CallbackInfo& info) { return read_tensor(info, true); }

Napi::Value Engine::read_tensor(const Napi::CallbackInfo& info, bool gradient) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const std::string name = string_argument(info, 0, "name");
    const int64_t offset = int64_t(number_argument(info, 1, "offset")),
                  count = int64_t(number_argument(info, 2, "count"));
    const DType type = storage_type(string_argument(info, 3, "type"));
    return post([=, this]() -> Worker::Result {
      auto bytes = std::make_shared<std::vector<uint8_t>>(
          decoder_->parameters().read(*backend_, name, gradient, offset, count, type));
      return [bytes](Napi::Env env) {
        Napi::Uint8Array result = Napi::Uint8Array::New(env, bytes->size());
        std::copy(bytes->begin(), bytes->end(), result.Data());
        return result;
      };
    });
  });
}

Napi::Value Engine::commit(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    return post([this]() -> Worker::Result {
      decoder_->prepare_weights();
      return [](Napi::Env env) { return env.Undefined(); };
    });
  });
}

Napi::Value Engine::initialize(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const uint64_t seed = uint64_t(number_argument(info, 0, "seed"));
    const double std = number_argument(info, 1, "std");
    return post([=, this]() -> Worker::Result {
      decoder_->initialize(seed, std);
      return [](Napi::Env env) { return env.Undefined(); };
    });
  });
}

Napi::Value Engine::initialize_adapters(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const uint64_t seed = uint64_t(number_argument(info, 0, "seed"));
    const bool pissa = info[1].ToBoolean();
    return post([=, this]() -> Worker::Result {
      if (pissa)
        decoder_->initialize_pissa(worker_->cancelled());
      else
        decoder_->initialize_adapters(seed);
      return [](Napi::Env env) { return env.Undefined(); };
    });
  });
}

Napi::Value Engine::merge_adapters(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    return post([this]() -> Worker::Result {
      decoder_->merge_adapters();
      return [](Napi::Env env) { return env.Undefined(); };
    });
  });
}

Napi::Value Engine::accumulate(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const double weight_sum = number_argument(info, 1, "weightSum");
    const bool first = info[2].ToBoolean();
    const std::optional<StepRandom> random = step_random(info[3]);
    return post(
        [this, batch = micro_batch(object_argument(info, 0, "batch")), weight_sum, first, random]() -> Worker::Result {
          return [sums = decoder_->accumulate(batch, weight_sum, first, random, worker_->cancelled())](Napi::Env env) {
            return loss_sums(env, sums);
          };
        });
  });
}

Napi::Value Engine::optimizer_step(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    return post([this, step = optimizer_options(object_argument(info, 0, "step"))]() -> Worker::Result {
      if (!optimizer_) throw CodedError("ERR_NOT_TRAINING", "this engine was created without training");
      const StepResult result = optimizer_->step(step);
      return [result](Napi::Env env) {
        Napi::Object object = Napi::Object::New(env);
        object.Set("gradNorm", result.grad_norm);
        object.Set("applied", result.applied);
        return object;
      };
    });
  });
}

Napi::Value Engine::evaluate(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    return post([this, batch = micro_batch(object_argument(info, 0, "batch"))]() -> Worker::Result {
      return [sums = decoder_->evaluate(batch, worker_->cancelled())](Napi::Env env) { return loss_sums(env, sums); };
    });
  });
}

Napi::Value Engine::logits(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    return post([this, batch = micro_batch(object_argument(info, 0, "batch"))]() -> Worker::Result {
      return [values = decoder_->logits(batch, worker_->cancelled())](Napi::Env env) { return floats(env, values); };
    });
  });
}

Napi::Value Engine::extend(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    if (!info[0].IsTypedArray() || info[0].As<Napi::TypedArray>().TypedArrayType() != napi_int32_array)
      throw CodedError("ERR_INVALID_ARGUMENT", "tokens is not an Int32Array");
    const auto array = info[0].As<Napi::Int32Array>();
    std::vector<int32_t> tokens(array.Data(), array.Data() + array.ElementLength());
    const int64_t position = int64_t(number_argument(info, 1, "position"));
    return extended({{0, position, std::move(tokens)}});
  });
}

Napi::Value Engine::extend_all(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value { return extended(cache_spans(object_argument(info, 0, "batch"))); });
}

Napi::Value Engine::extended(std::vector<CacheSpan> sequences) {
  return post([this, sequences = std::move(sequences)]() -> Worker::Result {
    return [values = decoder_->extend(sequences, worker_->cancelled())](Napi::Env env) { return floats(env, values); };
  });
}

Napi::Value Engine::profile(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    return post([this]() -> Worker::Result {
      if (!profiled_) throw CodedError("ERR_INVALID_ARGUMENT", "this engine was created without profile: true");
      return [times = profiled_->take()](Napi::Env env) {
        Napi::Array result = Napi::Array::New(env, times.size());
        for (uint32_t i = 0; i < times.size(); i++) {
          Napi::Object entry = Napi::Object::New(env);
          entry.Set("op", times[i].op);
          entry.Set("calls", double(times[i].calls));
          entry.Set("seconds", times[i].seconds);
          result.Set(i, entry);
        }
        return result;
      };
    });
  });
}

Napi::Promise Engine::post(Worker::Work work) {
  if (!worker_) throw CodedError("ERR_CLOSED", "the engine is closed");
  return worker_->post(Value(), std::move(work));
}

void Engine::cancel(const Napi::CallbackInfo&) {
  if (worker_) worker_->cancel();
}

void Engine::close(const Napi::CallbackInfo&) { shut_down(); }

}  // namespace tunesmith
