// PiSSA (arXiv 2404.02948): A and B start as the largest singular values of W, W as what is left of it.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <exception>
#include <string>
#include <thread>

#include "core/error.h"
#include "model/decoder.h"
#include "model/svd.h"

namespace tunesmith {

namespace {

struct Started {
  std::vector<double> a, b;  // [r, K], [N, r]
};

// W = U S Vᵀ: A = √(S / s) Vᵀ and B = U √(S / s), so that s · B A is the part of W that they take.
Started start(const std::vector<double>& w, int64_t n, int64_t k, const AdapterModule& module) {
  const int64_t rank = module.rank;
  const SingularVectors found = leading_singular_vectors(w, n, k, rank);
  Started result{std::vector<double>(size_t(rank * k)), std::vector<double>(size_t(n * rank))};
  for (int64_t r = 0; r < rank; r++) {
    const double root = std::sqrt(found.s[size_t(r)] / module.scale);
    for (int64_t i = 0; i < k; i++) result.a[size_t(r * k + i)] = root * found.v[size_t(r * k + i)];
    for (int64_t i = 0; i < n; i++) result.b[size_t(i * rank + r)] = root * found.u[size_t(r * n + i)];
  }
  return result;
}

}  // namespace

void Decoder::initialize_pissa(const std::atomic<bool>& cancel) {
  if (options_.adapters.dora || options_.quantization != Quantization::kNone)
    throw CodedError("ERR_INVALID_ARGUMENT", "PiSSA is for LoRA beside weights that are not quantised");
  const std::vector<AdapterModule>& modules = parameters_->adapters().modules;
  struct Work {
    const AdapterModule& module;
    int64_t n, k;
  };
  std::vector<Work> work;
  for (const AdapterModule& module : modules) {
    const int64_t n = parameters_->find(module.name + ".lora_b").value.rows;
    const int64_t k = parameters_->find(module.name + ".lora_a").value.cols;
    if (module.rank > std::min(n, k))
      throw CodedError("ERR_INVALID_ARGUMENT", "adapter of " + module.name + ": its rank is " +
                                                   std::to_string(module.rank) + ", and the weight has " +
                                                   std::to_string(std::min(n, k)) + " singular values");
    work.push_back({module, n, k});
  }

  // As many matrices at once as the backend has threads; what comes out does not depend on it.
  const size_t threads = std::min(work.size(), size_t(std::max(1, backend_.info().threads)));
  for (size_t first = 0; first < work.size(); first += threads) {
    check_cancelled(cancel);
    const size_t count = std::min(threads, work.size() - first);
    std::vector<std::vector<double>> weights(count);
    std::vector<Started> started(count);
    std::vector<std::exception_ptr> errors(count);
    for (size_t i = 0; i < count; i++) {
      const Work& item = work[first + i];
      weights[i].resize(size_t(item.n * item.k));
      int64_t row = 0;
      for (const std::string& part : item.module.parts) {
        const Parameter& weight = parameters_->find(part + ".weight");
        const std::vector<uint8_t> bytes =
            parameters_->read(backend_, weight.name, false, 0, weight.value.size(), DType::kFloat64);
        std::memcpy(weights[i].data() + row * item.k, bytes.data(), bytes.size());
        row += weight.value.rows;
      }
    }
    std::vector<std::thread> running;
    for (size_t i = 0; i < count; i++)
      running.emplace_back([&, i] {
        try {
          started[i] = start(weights[i], work[first + i].n, work[first + i].k, work[first + i].module);
        } catch (...) {
          errors[i] = std::current_exception();
        }
      });
    for (std::thread& thread : running) thread.join();
    for (size_t i = 0; i < count; i++) {
      if (errors[i]) std::rethrow_exception(errors[i]);
      const std::string& name = work[first + i].module.name;
      parameters_->write(backend_, name + ".lora_a", 0, DType::kFloat64, started[i].a.data(),
                         int64_t(started[i].a.size()));
      parameters_->write(backend_, name + ".lora_b", 0, DType::kFloat64, started[i].b.data(),
                         int64_t(started[i].b.size()));
    }
  }
  for (const Linear* linear : parameters_->linears()) {
    if (!linear->adapter) continue;
    for (const AdapterSlice& slice : linear->adapter->slices)
      backend_.lora_merge(linear->weight.master.slice_rows(slice.first, slice.count), slice.a, slice.b.master,
                          -slice.scale, {});
  }
}

}  // namespace tunesmith
