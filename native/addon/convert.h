// JavaScript values to native ones and back, and native errors to JavaScript errors with a code.
#pragma once

#include <napi.h>

#include <optional>
#include <string>

#include "backend/backend.h"
#include "core/arena.h"
#include "core/error.h"
#include "model/batch.h"
#include "model/decoder.h"
#include "train/optimizer.h"

namespace tunesmith {

struct EngineOptions {
  std::string backend;
  int threads;
  bool profile;  // times every op
  DecoderSpec spec;
  DecoderOptions decoder;
  OptimizerRule optimizer;
};

EngineOptions engine_options(Napi::Object options);
MicroBatch micro_batch(Napi::Object batch);
std::vector<CacheSpan> cache_spans(Napi::Object batch);
// Absent where the value is undefined.
std::optional<StepRandom> step_random(const Napi::Value& value);
OptimizerStep optimizer_options(Napi::Object step);
DType storage_type(const std::string& name);

Napi::Object memory_plan(Napi::Env env, const Arena& arena);
Napi::Object loss_sums(Napi::Env env, const LossSums& sums);

Napi::Error error_with_code(Napi::Env env, const std::string& code, const std::string& text);

// Runs `body`, turning every C++ exception into a JavaScript one.
template <class Body>
auto guarded(Napi::Env env, Body body) -> decltype(body()) {
  try {
    return body();
  } catch (const Napi::Error&) {
    throw;
  } catch (const CodedError& error) {
    throw error_with_code(env, error.code(), error.what());
  } catch (const std::exception& error) {
    throw error_with_code(env, "ERR_NATIVE", error.what());
  }
}

}  // namespace tunesmith
