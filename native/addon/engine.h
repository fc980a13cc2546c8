// The JavaScript class `Engine`: one backend, one arena, one decoder, one thread. Types in lib/native/addon.ts.
#pragma once

#include <napi.h>

#include <memory>

#include "addon/convert.h"
#include "addon/worker.h"
#include "backend/profiled.h"

namespace tunesmith {

class Engine : public Napi::ObjectWrap<Engine> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit Engine(const Napi::CallbackInfo& info);
  ~Engine() override { shut_down(); }

 private:
  Napi::Value plan(const Napi::CallbackInfo& info);
  Napi::Value unplanned(const Napi::CallbackInfo& info);
  Napi::Value parameters(const Napi::CallbackInfo& info);
  Napi::Value write(const Napi::CallbackInfo& info);
  Napi::Value read(const Napi::CallbackInfo& info);
  Napi::Value read_gradient(const Napi::CallbackInfo& info);
  Napi::Value commit(const Napi::CallbackInfo& info);
  Napi::Value initialize(const Napi::CallbackInfo& info);
  Napi::Value initialize_adapters(const Napi::CallbackInfo& info);
  Napi::Value merge_adapters(const Napi::CallbackInfo& info);
  Napi::Value accumulate(const Napi::CallbackInfo& info);
  Napi::Value optimizer_step(const Napi::CallbackInfo& info);
  Napi::Value evaluate(const Napi::CallbackInfo& info);
  Napi::Value logits(const Napi::CallbackInfo& info);
  Napi::Value extend(const Napi::CallbackInfo& info);
  Napi::Value extend_all(const Napi::CallbackInfo& info);
  Napi::Value profile(const Napi::CallbackInfo& info);
  void cancel(const Napi::CallbackInfo& info);
  void close(const Napi::CallbackInfo& info);

  // Throws ERR_CLOSED after close().
  Napi::Promise post(Worker::Work work);
  Napi::Value extended(std::vector<CacheSpan> sequences);
  Napi::Value read_tensor(const Napi::CallbackInfo& info, bool gradient);
  void shut_down();

  // Torn down in the opposite order: the thread first, then what it works on.
  std::unique_ptr<Backend> backend_;
  ProfiledBackend* profiled_ = nullptr;  // backend_ itself, where times were asked for
  Arena arena_;
  void* memory_ = nullptr;
  std::unique_ptr<Decoder> decoder_;
  std::unique_ptr<Optimizer> optimizer_;  // null without training
  std::unique_ptr<Worker> worker_;
};

}  // namespace tunesmith
