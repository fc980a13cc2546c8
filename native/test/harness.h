// What the op tests share: host matrices, random numbers, device buffers with guard zones, and the two comparisons
// every op goes through (finite differences on the reference; every other backend against the reference).
//
// A new backend needs one name in TUNESMITH_TEST_BACKENDS and nothing here: all device memory goes through
// Backend::allocate, upload and download.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "doctest/doctest.h"

namespace tunesmith::test {

// ---- backends -------------------------------------------------------------------------------------------------------
// Those of TUNESMITH_TEST_BACKENDS (comma list, default "reference,cpu"), made once, with TUNESMITH_TEST_THREADS
// threads (default 2). Throws CodedError where one of them does not load: a missing backend is a failed test.
struct NamedBackend {
  std::string name;
  std::unique_ptr<Backend> backend;
};
const std::vector<NamedBackend>& backends();
// Calls `run` once on an ordinary backend, and once per fiber order on cuda-host (cuda/host/fibers.h) but the usual
// one: reverse, and a random one with another seed at every call, or those of TUNESMITH_TEST_FIBER_SEEDS (comma list).
void for_orders(const std::string& backend, const std::function<void()>& run);
// The oracle, always there.
Backend& reference();

// ---- host values ----------------------------------------------------------------------------------------------------
struct Matrix {
  int64_t rows, cols;
  std::vector<double> values;  // row-major

  Matrix(int64_t rows, int64_t cols, double fill = 0) : rows(rows), cols(cols), values(size_t(rows * cols), fill) {}
  double& operator()(int64_t row, int64_t col) { return values[size_t(row * cols + col)]; }
  double operator()(int64_t row, int64_t col) const { return values[size_t(row * cols + col)]; }
  Matrix columns(int64_t first, int64_t count) const;
  Matrix rounded(DType type) const;
};

double round_to(DType type, double value);
// Half the distance from 1 to the next value: the largest relative error of one rounding.
double unit_roundoff(DType type);
double dot(const Matrix& a, const Matrix& b);

// Counter-based: every value depends on the seed, the number of the draw and its own index only.
class Random {
 public:
  explicit Random(uint64_t seed) : seed_(seed) {}
  // Uniform in [-scale, scale).
  Matrix matrix(int64_t rows, int64_t cols, double scale = 1);
  // Each in [0, bound).
  std::vector<int32_t> integers(int64_t count, int32_t bound);

 private:
  uint64_t seed_, draw_ = 0;
};

// ---- device buffers -------------------------------------------------------------------------------------------------
// Columns to the left and right of a view that belong to somebody else: what makes it a column slice. Odd on purpose.
struct Margin {
  int64_t left = 0, right = 0;
};
constexpr Margin kSlice{5, 3};

// A matrix in device memory, in the middle of an allocation filled with signalling NaNs. When it goes, everything
// around the view must be as it was, and so must the view itself unless the op may write it.
class Buffer {
 public:
  enum class Access { kRead, kWrite };

  // Without values the view holds signalling NaNs too.
  Buffer(Backend& backend, DType type, int64_t rows, int64_t cols, Margin margin, Access access,
         const Matrix* values = nullptr);
  // Untyped memory for the backend's own use; data() is 64-byte aligned, null for 0 bytes.
  Buffer(Backend& backend, size_t bytes);
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer();

  operator Tensor() const { return view_; }
  Tensor tensor() const { return view_; }
  void* data() const { return view_.data; }
  const int32_t* ints() const { return view_.as<int32_t>(); }
  Matrix get() const { return get(view_); }
  // Any view inside this allocation.
  Matrix get(Tensor view) const;

 private:
  std::vector<unsigned char> download() const;

  Backend& backend_;
  Access access_;
  Tensor view_;
  void* memory_;
  std::vector<unsigned char> image_;  // what was uploaded
};

// ---- one op on one backend ------------------------------------------------------------------------------------------
enum class Kind { kCompute, kWide };

// A backend, the type it computes in, and the type whose rounding the inputs carry. The reference computes in float64
// on inputs that are rounded to the type of the backend it judges.
class Device {
 public:
  Device(Backend& backend, DType compute, DType rounding) : backend_(backend), compute_(compute), rounding_(rounding) {}

  Backend& operator*() const { return backend_; }
  Backend* operator->() const { return &backend_; }
  DType type(Kind kind = Kind::kCompute) const { return kind == Kind::kCompute ? compute_ : wide(compute_); }
  DType rounding(Kind kind = Kind::kCompute) const { return kind == Kind::kCompute ? rounding_ : wide(rounding_); }

  Buffer input(Kind kind, const Matrix& values, Margin margin = {}) const;
  // Holds values that the op may overwrite or add to.
  Buffer inout(Kind kind, const Matrix& values, Margin margin = {}) const;
  Buffer output(Kind kind, int64_t rows, int64_t cols, Margin margin = {}) const;
  Buffer index(const std::vector<int32_t>& values) const;
  Buffer index_output(int64_t count) const;

  // So many unit roundoffs of the compute type and so many of the wide type.
  double tolerance(double compute, double wide) const;

 private:
  Backend& backend_;
  DType compute_, rounding_;
};

// What an op made, of n elements whose root mean square is rms. Each single error may be four times `tolerance` ·
// (|expected| + rms) + `floor`, and ‖actual - expected‖ half of `tolerance` · ‖expected‖, plus `floor` · √n: of errors
// spread evenly between 0 and the tolerance the root mean square is well under half, whereas cutting digits off instead
// of rounding them makes it exceed half. (Where few elements make up the norm, the whole is allowed.) The floor is for
// results that come of terms larger than themselves. 0 and 0 ask for equality.
struct Output {
  std::string name;
  Matrix value;
  double tolerance;
  double floor = 0;
};
using Outputs = std::vector<Output>;

// ---- comparisons ----------------------------------------------------------------------------------------------------
// `what` is the op and its shapes, for the message.
void check_close(const std::string& what, const Matrix& actual, const Matrix& expected, double tolerance,
                 double floor = 0);
// Exactly the same numbers; NaN equals NaN.
void check_same(const std::string& what, const Matrix& actual, const Matrix& expected);
// Runs the op on every backend in float32 and bfloat16, where it supports them, against the reference in float64 on the
// same rounded inputs; and once more, which must give the same bits. On cuda-host once more is in every fiber order.
void check_backends(const std::string& what, const std::function<Outputs(const Device&)>& run);
// `gradient` against central differences of loss() in every element of x, which loss() reads. Relative error 1e-6: with
// steps of 1e-4 truncation is near 1e-9 and cancellation near 1e-12 of the loss.
void check_gradient(const std::string& what, const Matrix& gradient, Matrix& x, const std::function<double()>& loss);
// The reference in float64, for finite differences.
Device oracle();

// "key value, key value" for messages.
template <class... Rest>
std::string describe(const char* key, Rest... rest);
inline std::string describe() { return ""; }
template <class Value, class... Rest>
std::string describe(const char* key, Value value, Rest... rest) {
  std::ostringstream text;
  text << " " << key << "=" << value << describe(rest...);
  return text.str();
}

}  // namespace tunesmith::test
