// tunesmith_bench_ops [--op TEXT] [--type bfloat16|float32] [--threads N] [--tokens N] [--seconds S] [--clock wall|cpu]
//
// Checks every op of a SmolLM2-135M training step on the CPU backend against the reference backend, then times it:
// median milliseconds, GFLOP/s or GB/s, and its share of a step. Nothing is timed that does not agree first. `--clock
// cpu` with one thread tells more than the wall clock where the machine has other work.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <stdexcept>

#include "backend/loader.h"
#include "workloads.h"

namespace {

using namespace tunesmith;
using namespace tunesmith::bench;

struct Options {
  std::string op;
  DType type = DType::kBFloat16;
  int threads = 0;
  int64_t tokens = 1024;
  double seconds = 1;
  clockid_t clock = CLOCK_MONOTONIC;
};

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; i += 2) {
    const std::string key = argv[i];
    if (i + 1 >= argc) throw std::invalid_argument(key + " needs a value");
    const std::string value = argv[i + 1];
    if (key == "--op")
      options.op = value;
    else if (key == "--type" && (value == "bfloat16" || value == "float32"))
      options.type = value == "float32" ? DType::kFloat32 : DType::kBFloat16;
    else if (key == "--threads")
      options.threads = std::stoi(value);
    else if (key == "--tokens")
      options.tokens = std::stoll(value);
    else if (key == "--clock" && (value == "wall" || value == "cpu"))
      options.clock = value == "cpu" ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC;
    else if (key == "--seconds")
      options.seconds = std::stod(value);
    else
      throw std::invalid_argument("unknown option " + key + " " + value);
  }
  return options;
}

std::vector<float> download(Backend& backend, const Tensor& tensor) {
  std::vector<float> host(static_cast<size_t>(tensor.size()));
  void* plain = backend.allocate(host.size() * sizeof(float));
  backend.cast(matrix(plain, DType::kFloat32, tensor.rows, tensor.cols), tensor);
  backend.download(host.data(), plain, host.size() * sizeof(float));
  backend.release(plain);
  return host;
}

double relative_error(const std::vector<float>& actual, const std::vector<float>& expected) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    error += std::pow(double(actual[i]) - expected[i], 2);
    norm += std::pow(double(expected[i]), 2);
  }
  return std::sqrt(error / norm);  // NaN where nothing was computed
}

void check(const Op& op, Backend& backend, Backend& reference, DType type) {
  Pool ours(backend, type), theirs(reference, DType::kFloat32);
  const Workload actual = op.make(ours, op.check_tokens), expected = op.make(theirs, op.check_tokens);
  actual.run();
  expected.run();
  const double tolerance = type == DType::kFloat32 ? 1e-4 : op.tolerance;
  for (size_t i = 0; i < expected.outputs.size(); ++i) {
    const double error = relative_error(download(backend, actual.outputs[i]), download(reference, expected.outputs[i]));
    if (!(error <= tolerance))
      throw std::runtime_error(op.name + ": output " + std::to_string(i) + " differs from the reference by " +
                               std::to_string(error) + ", allowed " + std::to_string(tolerance));
  }
}

double now(clockid_t clock) {
  timespec time;
  clock_gettime(clock, &time);
  return double(time.tv_sec) + 1e-9 * double(time.tv_nsec);
}

struct Timing {
  double median, best;  // seconds
};

// Of at least five runs, after some that do not count.
Timing measure(const Workload& workload, double seconds, clockid_t clock) {
  for (int i = 0; i < 3; ++i) workload.run();
  std::vector<double> times;
  for (const double start = now(clock); now(clock) < start + seconds || times.size() < 5;) {
    const double begin = now(clock);
    workload.run();
    times.push_back(now(clock) - begin);
  }
  std::nth_element(times.begin(), times.begin() + long(times.size() / 2), times.end());
  return {times[times.size() / 2], *std::min_element(times.begin(), times.end())};
}

int run(const Options& options) {
  const auto backend = create_backend("cpu", options.threads), reference = create_backend("reference", 1);
  const BackendInfo info = backend->info();
  if (!backend->supports(options.type))
    throw std::runtime_error(std::string("this machine does not compute in ") + name_of(options.type));
  std::printf("%s, %s, %d threads, %s, %lld tokens\n", info.library.c_str(), info.isa.c_str(), info.threads,
              name_of(options.type), static_cast<long long>(options.tokens));
  std::printf("%-36s %10s %10s %8s %8s %9s %10s\n", "op", "median ms", "best ms", "GFLOP/s", "GB/s", "per step",
              "ms a step");
  double step = 0;
  for (const Op& op : step_ops()) {
    if (op.name.find(options.op) == std::string::npos) continue;
    check(op, *backend, *reference, options.type);
    Pool pool(*backend, options.type);
    const Workload workload = op.make(pool, options.tokens);
    const auto [seconds, best] = measure(workload, options.seconds, options.clock);
    std::printf("%-36s %10.3f %10.3f %8.0f %8.1f %9.0f %10.1f\n", op.name.c_str(), seconds * 1e3, best * 1e3,
                workload.flops / seconds * 1e-9, workload.bytes / seconds * 1e-9, op.per_step,
                seconds * op.per_step * 1e3);
    std::fflush(stdout);
    backend->set_scratch(nullptr, 0);
    step += seconds * op.per_step;
  }
  std::printf("%-36s %60.1f\n", "sum", step * 1e3);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(parse(argc, argv));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
