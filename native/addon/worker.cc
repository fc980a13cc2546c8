#include "addon/worker.h"

#include <utility>

#include "addon/convert.h"

namespace tunesmith {

struct Worker::Job {
  Job(Napi::Env env, Napi::Object owner) : deferred(Napi::Promise::Deferred::New(env)), owner(Napi::Persistent(owner)) {
    this->owner.SuppressDestruct();  // the job may die on the worker thread, where references must not be touched
  }

  Napi::Promise::Deferred deferred;
  Napi::ObjectReference owner;  // keeps the engine from being collected while somebody waits for it
  Work work;
  uint64_t number = 0;
  Result result;
  std::string code, text;  // set when the work failed
  napi_threadsafe_function settle = nullptr;
};

namespace {

// On the JavaScript thread. `env` is null when the environment is going away: then nobody waits any more.
template <class Job>
void settle(napi_env raw, napi_value, void* context, void*) {
  if (!raw) return;
  const Napi::Env env(raw);
  Job& job = **static_cast<std::shared_ptr<Job>*>(context);
  try {
    Napi::HandleScope scope(env);
    job.owner.Reset();
    if (job.code.empty()) {
      job.deferred.Resolve(job.result(env));
    } else {
      job.deferred.Reject(error_with_code(env, job.code, job.text).Value());
    }
  } catch (const Napi::Error&) {  // the environment is going away
  }
}

template <class Job>
void drop(napi_env, void* data, void*) {
  delete static_cast<std::shared_ptr<Job>*>(data);
}

}  // namespace

Worker::Worker(Napi::Env env) : env_(env) {
  thread_ = std::thread([this] { loop(); });
  napi_add_env_cleanup_hook(env_, &Worker::on_environment_end, this);
}

void Worker::on_environment_end(void* self) {
  static_cast<Worker*>(self)->env_ = nullptr;  // the hook is gone already: stop() must not remove it
  static_cast<Worker*>(self)->stop();
}

Napi::Promise Worker::post(Napi::Object owner, Work work) {
  const Napi::Env env = owner.Env();
  {
    std::lock_guard lock(mutex_);
    if (stopping_) throw error_with_code(env, "ERR_CLOSED", "the engine is closed");
  }
  const auto job = std::make_shared<Job>(env, owner);
  job->work = std::move(work);
  auto* shared = new std::shared_ptr<Job>(job);
  const napi_status status =
      napi_create_threadsafe_function(env, nullptr, nullptr, Napi::String::New(env, "tunesmith"), 0, 1, shared,
                                      drop<Job>, shared, settle<Job>, &job->settle);
  if (status != napi_ok) {
    delete shared;
    throw error_with_code(env, "ERR_NATIVE", "no thread-safe function could be made");
  }
  {
    std::lock_guard lock(mutex_);
    job->number = ++posted_;
    jobs_.push_back(job);
  }
  wake_.notify_all();
  return job->deferred.Promise();
}

void Worker::post_first(std::function<void()> work) {
  {
    std::lock_guard lock(mutex_);
    first_ = std::move(work);
  }
  wake_.notify_all();
}

void Worker::cancel() {
  std::lock_guard lock(mutex_);
  cancelled_through_ = posted_;
  cancelled_ = true;
}

void Worker::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    cancelled_through_ = posted_;
    cancelled_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
  if (env_) napi_remove_env_cleanup_hook(std::exchange(env_, nullptr), &Worker::on_environment_end, this);
}

void Worker::loop() {
  for (;;) {
    std::shared_ptr<Job> job;
    std::function<void()> first;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stopping_ || first_ || !jobs_.empty(); });
      if (first_) {
        first = std::exchange(first_, nullptr);
      } else if (jobs_.empty()) {
        return;  // stopping, and nobody waits
      } else {
        job = jobs_.front();
        jobs_.pop_front();
        // Under the lock, so that a cancel() meant for an earlier job does not end this one, nor the other way round.
        cancelled_ = stopping_ || job->number <= cancelled_through_;
      }
    }
    if (first) {
      try {
        first();
      } catch (const CodedError& error) {
        broken_code_ = error.code();
        broken_text_ = error.what();
      } catch (const std::exception& error) {
        broken_code_ = "ERR_NATIVE";
        broken_text_ = error.what();
      }
    } else {
      run(*job);
      // While the environment ends these answer napi_closing; the job is dropped all the same.
      napi_call_threadsafe_function(job->settle, nullptr, napi_tsfn_nonblocking);
      napi_release_threadsafe_function(job->settle, napi_tsfn_release);
    }
  }
}

void Worker::run(Job& job) {
  try {
    if (!broken_code_.empty()) throw CodedError(broken_code_, broken_text_);
    check_cancelled(cancelled_);
    job.result = job.work();
  } catch (const CodedError& error) {
    job.code = error.code();
    job.text = error.what();
  } catch (const std::bad_alloc&) {
    job.code = "ERR_OUT_OF_MEMORY";
    job.text = "the host is out of memory";
  } catch (const std::exception& error) {
    job.code = "ERR_NATIVE";
    job.text = error.what();
  }
  job.work = nullptr;  // frees what it holds while still on this thread
}

}  // namespace tunesmith
