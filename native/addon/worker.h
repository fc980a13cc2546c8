// The engine's thread, and the promises through which JavaScript waits for it. Jobs run in the order they were posted.
//
// Lifetimes, each of which has to hold when an environment ends in mid-job (process.exit, worker.terminate()):
// - the thread is joined by stop(): from close(), the destructor, or the environment's cleanup hook;
// - a job is shared by the thread and its thread-safe function, whichever lives longer;
// - nothing thrown may leave a callback: it would end the process.
#pragma once

#include <napi.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

namespace tunesmith {

class Worker {
 public:
  // Makes the JavaScript value of a result, on the JavaScript thread.
  using Result = std::function<Napi::Value(Napi::Env)>;
  using Work = std::function<Result()>;

  explicit Worker(Napi::Env env);
  ~Worker() { stop(); }
  Worker(const Worker&) = delete;

  // The promise rejects with an Error that carries the CodedError's code. Work runs on the thread; it holds no
  // JavaScript.
  Napi::Promise post(Napi::Object owner, Work work);
  // Work without a promise, before any other: its failure is what every later job reports.
  void post_first(std::function<void()> work);

  // Every job posted so far ends with ERR_CANCELLED as soon as it looks at cancelled().
  void cancel();
  const std::atomic<bool>& cancelled() const { return cancelled_; }
  // Cancels, joins the thread; later jobs are refused with ERR_CLOSED. Idempotent.
  void stop();

 private:
  struct Job;
  static void on_environment_end(void* self);
  void loop();
  void run(Job& job);

  napi_env env_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::shared_ptr<Job>> jobs_;
  bool stopping_ = false;
  uint64_t posted_ = 0;             // jobs so far
  uint64_t cancelled_through_ = 0;  // jobs up to this one are cancelled
  std::atomic<bool> cancelled_{false};
  std::function<void()> first_;
  std::string broken_code_, broken_text_;  // why every job fails, if the first work did
  std::thread thread_;
};

}  // namespace tunesmith
