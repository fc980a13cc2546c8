// The addon's exports. Types in lib/native/addon.ts.
#include <napi.h>

#include "addon/engine.h"
#include "backend/loader.h"

namespace tunesmith {

namespace {

Napi::Value plan(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    if (!info[0].IsObject()) throw CodedError("ERR_INVALID_ARGUMENT", "options is not an object");
    const EngineOptions options = engine_options(info[0].As<Napi::Object>());
    const std::unique_ptr<Backend> backend = create_backend(options.backend, options.threads);
    Arena arena;
    Decoder decoder(options.spec, options.decoder, *backend, arena);
    if (options.decoder.training) Optimizer(options.optimizer, decoder, *backend, arena);
    return memory_plan(info.Env(), arena);
  });
}

Napi::Value backends(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Napi::Array result = Napi::Array::New(env);
  for (const char* name : {"cuda", "cpu", "reference"}) {
    Napi::Object status = Napi::Object::New(env);
    status.Set("name", name);
    try {
      const BackendInfo found = create_backend(name, 0)->info();
      status.Set("available", true);
      status.Set("isa", found.isa);
      status.Set("library", found.library);
      status.Set("threads", found.threads);
      status.Set("fastBfloat16", found.fast_bfloat16);
    } catch (const std::exception& error) {
      status.Set("available", false);
      status.Set("reason", error.what());
    }
    result.Set(result.Length(), status);
  }
  return result;
}

Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  exports.Set("Engine", Engine::define(env));
  exports.Set("plan", Napi::Function::New(env, plan, "plan"));
  exports.Set("backends", Napi::Function::New(env, backends, "backends"));
  exports.Set("version", TUNESMITH_VERSION);
  return exports;
}

}  // namespace

NODE_API_MODULE(tunesmith, initialize)

}  // namespace tunesmith
