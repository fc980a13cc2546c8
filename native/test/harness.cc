#include "test/harness.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <limits>
#include <sstream>

#include "backend/loader.h"
#include "core/float16.h"

namespace tunesmith::test {

// ---- backends -------------------------------------------------------------------------------------------------------

const std::vector<NamedBackend>& backends() {
  static const std::vector<NamedBackend> all = [] {
    const char* list = std::getenv("TUNESMITH_TEST_BACKENDS");
    const char* threads = std::getenv("TUNESMITH_TEST_THREADS");
    std::vector<NamedBackend> made;
    std::istringstream names(list ? list : "reference,cpu");
    for (std::string name; std::getline(names, name, ',');)
      made.push_back({name, create_backend(name, threads ? std::atoi(threads) : 2)});
    return made;
  }();
  return all;
}

void for_orders(const std::string& backend, const std::function<void()>& run) {
  if (backend != "cuda-host") return run();
  // Another seed every time, so that the cases of an op run in as many random orders as there are cases.
  static int count = 0;
  const std::string next = std::to_string(++count);
  const char* const seeds = std::getenv("TUNESMITH_TEST_FIBER_SEEDS");
  std::vector<std::string> orders = {"reverse"};
  std::istringstream list(seeds ? seeds : next);
  for (std::string seed; std::getline(list, seed, ',');) orders.push_back("random:" + seed);
  for (const std::string& order : orders) {
    INFO("fiber order ", order);
    setenv("TUNESMITH_FIBER_ORDER", order.c_str(), 1);
    run();
  }
  unsetenv("TUNESMITH_FIBER_ORDER");
}

Backend& reference() {
  static const std::unique_ptr<Backend> backend = create_backend("reference", 1);
  return *backend;
}

Device oracle() { return {reference(), DType::kFloat64, DType::kFloat64}; }

// ---- host values ----------------------------------------------------------------------------------------------------

Matrix Matrix::columns(int64_t first, int64_t count) const {
  Matrix part(rows, count);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < count; ++c) part(r, c) = (*this)(r, first + c);
  return part;
}

Matrix Matrix::rounded(DType type) const {
  Matrix result = *this;
  for (double& value : result.values) value = round_to(type, value);
  return result;
}

double round_to(DType type, double value) {
  switch (type) {
    case DType::kFloat64:
      return value;
    case DType::kFloat32:
      return float(value);
    case DType::kBFloat16:
      return float(BFloat16(float(value)));
    case DType::kFloat16:
      return float(Float16(float(value)));
    default:
      return std::trunc(value);
  }
}

double unit_roundoff(DType type) {
  switch (type) {
    case DType::kFloat64:
      return 0x1p-53;
    case DType::kFloat32:
      return 0x1p-24;
    case DType::kFloat16:
      return 0x1p-11;
    default:
      return 0x1p-8;
  }
}

double dot(const Matrix& a, const Matrix& b) {
  double sum = 0;
  for (size_t i = 0; i < a.values.size(); ++i) sum += a.values[i] * b.values[i];
  return sum;
}

namespace {

// The finalizer of SplitMix64 (Steele, Lea and Flood 2014), twice over a distinct counter per value.
uint64_t mix(uint64_t x) {
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
  x = (x ^ x >> 27) * 0x94d049bb133111eb;
  return x ^ x >> 31;
}

uint64_t random_bits(uint64_t seed, uint64_t draw, uint64_t index) {
  return mix(mix(seed * 0x9e3779b97f4a7c15 + draw) + (index + 1) * 0x9e3779b97f4a7c15);
}

}  // namespace

Matrix Random::matrix(int64_t rows, int64_t cols, double scale) {
  Matrix values(rows, cols);
  ++draw_;
  for (size_t i = 0; i < values.values.size(); ++i)
    values.values[i] = scale * (double(random_bits(seed_, draw_, i) >> 11) * 0x1p-52 - 1);
  return values;
}

std::vector<int32_t> Random::integers(int64_t count, int32_t bound) {
  std::vector<int32_t> values(size_t(count), 0);
  ++draw_;
  for (size_t i = 0; i < values.size(); ++i) values[i] = int32_t(random_bits(seed_, draw_, i) % uint64_t(bound));
  return values;
}

// ---- device buffers -------------------------------------------------------------------------------------------------

namespace {

constexpr size_t kGuard = 512;  // bytes on each side: eight vectors of 64

// Signalling NaNs: arithmetic on one gives a quiet NaN, so that even adding to a guard changes its bits. For indices a
// value that no op can follow unnoticed.
void fill_guards(std::vector<unsigned char>& bytes, DType type) {
  const auto fill = [&bytes](auto pattern) {
    for (size_t i = 0; i + sizeof pattern <= bytes.size(); i += sizeof pattern)
      std::memcpy(&bytes[i], &pattern, sizeof pattern);
  };
  switch (type) {
    case DType::kFloat64:
      return fill(uint64_t(0xfff7ffffffffffff));
    case DType::kFloat32:
      return fill(uint32_t(0xffbfffff));
    case DType::kBFloat16:
      return fill(uint16_t(0xffbf));
    case DType::kFloat16:
      return fill(uint16_t(0xfdff));
    case DType::kInt32:
      return fill(uint32_t(0x80000001));
  }
}

template <class T>
void put(unsigned char* at, T value) {
  std::memcpy(at, &value, sizeof value);
}
template <class T>
T take(const unsigned char* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

void store(unsigned char* at, DType type, double value) {
  switch (type) {
    case DType::kFloat64:
      return put(at, value);
    case DType::kFloat32:
      return put(at, float(value));
    case DType::kBFloat16:
      return put(at, BFloat16(float(value)));
    case DType::kFloat16:
      return put(at, Float16(float(value)));
    case DType::kInt32:
      return put(at, int32_t(value));
  }
}

double load(const unsigned char* at, DType type) {
  switch (type) {
    case DType::kFloat64:
      return take<double>(at);
    case DType::kFloat32:
      return take<float>(at);
    case DType::kBFloat16:
      return float(take<BFloat16>(at));
    case DType::kFloat16:
      return float(take<Float16>(at));
    default:
      return take<int32_t>(at);
  }
}

}  // namespace

Buffer::Buffer(Backend& backend, DType type, int64_t rows, int64_t cols, Margin margin, Access access,
               const Matrix* values)
    : backend_(backend), access_(access) {
  const int64_t size = int64_t(size_of(type)), stride = margin.left + cols + margin.right;
  image_.resize(2 * kGuard + size_t(rows * stride * size));
  fill_guards(image_, type);
  if (values)
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols; ++c)
        store(&image_[kGuard + size_t((r * stride + margin.left + c) * size)], type, (*values)(r, c));
  memory_ = backend.allocate(image_.size());
  backend.upload(memory_, image_.data(), image_.size());
  view_ = {static_cast<char*>(memory_) + int64_t(kGuard) + margin.left * size, type, rows, cols, stride};
}

Buffer::Buffer(Backend& backend, size_t bytes)
    : Buffer(backend, DType::kFloat32, 1, int64_t(bytes + 3) / 4, {}, Access::kWrite) {
  if (bytes == 0) view_.data = nullptr;
}

std::vector<unsigned char> Buffer::download() const {
  std::vector<unsigned char> bytes(image_.size());
  backend_.synchronize();
  backend_.download(bytes.data(), memory_, bytes.size());
  return bytes;
}

Buffer::~Buffer() {
  if (std::uncaught_exceptions() == 0) {
    std::vector<unsigned char> now = download();
    const int64_t size = int64_t(size_of(view_.dtype));
    if (access_ == Access::kWrite && view_.data) {
      // What the op wrote where it may is not compared.
      const int64_t first = static_cast<char*>(view_.data) - static_cast<char*>(memory_);
      for (int64_t r = 0; r < view_.rows; ++r) {
        const size_t at = size_t(first + r * view_.stride * size);
        std::copy_n(&image_[at], size_t(view_.cols * size), &now[at]);
      }
    }
    const size_t at = size_t(std::mismatch(now.begin(), now.end(), image_.begin()).first - now.begin());
    INFO("byte ", int64_t(at) - int64_t(kGuard), " after the first row's start, of a ", name_of(view_.dtype), " ",
         view_.rows, "x", view_.cols, " view with stride ", view_.stride);
    CHECK_MESSAGE(at == now.size(),
                  (access_ == Access::kRead ? "an op wrote to its input" : "an op wrote outside its output"));
  }
  backend_.release(memory_);
}

Matrix Buffer::get(Tensor view) const {
  const auto bytes = download();
  const int64_t size = int64_t(size_of(view.dtype));
  const int64_t first = static_cast<char*>(view.data) - static_cast<char*>(memory_);
  Matrix values(view.rows, view.cols);
  for (int64_t r = 0; r < view.rows; ++r)
    for (int64_t c = 0; c < view.cols; ++c)
      values(r, c) = load(&bytes[size_t(first + (r * view.stride + c) * size)], view.dtype);
  return values;
}

// ---- one op on one backend ------------------------------------------------------------------------------------------

Buffer Device::input(Kind kind, const Matrix& values, Margin margin) const {
  const Matrix exact = values.rounded(rounding(kind));
  return {backend_, type(kind), values.rows, values.cols, margin, Buffer::Access::kRead, &exact};
}

Buffer Device::inout(Kind kind, const Matrix& values, Margin margin) const {
  const Matrix exact = values.rounded(rounding(kind));
  return {backend_, type(kind), values.rows, values.cols, margin, Buffer::Access::kWrite, &exact};
}

Buffer Device::output(Kind kind, int64_t rows, int64_t cols, Margin margin) const {
  return {backend_, type(kind), rows, cols, margin, Buffer::Access::kWrite};
}

Buffer Device::index(const std::vector<int32_t>& values) const {
  Matrix row(1, int64_t(values.size()));
  std::copy(values.begin(), values.end(), row.values.begin());
  return {backend_, DType::kInt32, 1, row.cols, {}, Buffer::Access::kRead, &row};
}

Buffer Device::index_output(int64_t count) const {
  return {backend_, DType::kInt32, 1, count, {}, Buffer::Access::kWrite};
}

double Device::tolerance(double compute, double wide) const {
  return compute * unit_roundoff(rounding()) + wide * unit_roundoff(rounding(Kind::kWide));
}

// ---- comparisons ----------------------------------------------------------------------------------------------------

namespace {

bool same(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

std::string element(const Matrix& values, size_t index) {
  std::ostringstream text;
  text << "[" << int64_t(index) / values.cols << ", " << int64_t(index) % values.cols << "]";
  return text.str();
}

}  // namespace

void check_close(const std::string& what, const Matrix& actual, const Matrix& expected, double tolerance,
                 double floor) {
  REQUIRE_MESSAGE((actual.rows == expected.rows && actual.cols == expected.cols), what, ": shapes differ");
  double error = 0, norm = 0, fourth = 0;
  for (size_t i = 0; i < expected.values.size(); ++i) {
    const double square = expected.values[i] * expected.values[i];
    error += (actual.values[i] - expected.values[i]) * (actual.values[i] - expected.values[i]);
    norm += square, fourth += square * square;
  }
  // 1 / √(as many equal elements as would have this norm and this sum of fourth powers)
  const double spread = norm > 0 ? std::sqrt(fourth) / norm : 1;
  const double allowed = tolerance * std::min(1.0, 0.5 + spread);
  error = std::sqrt(error), norm = std::sqrt(norm);
  const double root_count = std::sqrt(std::max<double>(1, double(expected.values.size())));
  size_t worst = 0;
  double excess = 0;  // of the worst element: its error over what it may be
  for (size_t i = 0; i < expected.values.size() && !std::isnan(excess); ++i) {
    const double difference = std::abs(actual.values[i] - expected.values[i]);
    const double bound = 4 * (tolerance * (std::abs(expected.values[i]) + norm / root_count) + floor);
    const double ratio = difference == 0 ? 0 : difference / bound;
    if (!(ratio <= excess)) worst = i, excess = ratio;
  }
  const bool close = error <= allowed * norm + floor * root_count && excess <= 1;  // false on NaN
  INFO("relative L2 error ", norm > 0 ? error / norm : error, ", allowed ", allowed, " and a floor of ", floor,
       "; worst element ", element(expected, worst), ": ", actual.values[worst], " instead of ",
       expected.values[worst]);
  CHECK_MESSAGE(close, what);
}

void check_same(const std::string& what, const Matrix& actual, const Matrix& expected) {
  REQUIRE_MESSAGE((actual.rows == expected.rows && actual.cols == expected.cols), what, ": shapes differ");
  size_t i = 0;
  while (i < expected.values.size() && same(actual.values[i], expected.values[i])) ++i;
  const size_t different = std::min(i, expected.values.size() - 1);
  INFO("element ", element(expected, different), ": ", actual.values[different], " instead of ",
       expected.values[different]);
  CHECK_MESSAGE(i == expected.values.size(), what);
}

void check_backends(const std::string& what, const std::function<Outputs(const Device&)>& run) {
  for (const DType type : {DType::kFloat32, DType::kBFloat16}) {
    const Outputs expected = run({reference(), DType::kFloat64, type});
    for (const auto& [name, backend] : backends()) {
      if (!backend->supports(type)) continue;
      const std::string where = name + " in " + name_of(type) + ": " + what;
      INFO(where);
      const Outputs actual = run({*backend, type, type});
      REQUIRE(actual.size() == expected.size());
      for (const Output& output : actual) {
        const size_t i = size_t(&output - actual.data());
        check_close(where + ": " + output.name, output.value, expected[i].value, output.tolerance, output.floor);
      }
      for_orders(name, [&] {
        const Outputs again = run({*backend, type, type});
        for (size_t i = 0; i < actual.size(); ++i)
          check_same(where + ": " + actual[i].name + ", run again", again[i].value, actual[i].value);
      });
    }
  }
}

void check_gradient(const std::string& what, const Matrix& gradient, Matrix& x, const std::function<double()>& loss) {
  constexpr double kStep = 1e-4;
  Matrix numeric(x.rows, x.cols);
  for (size_t i = 0; i < x.values.size(); ++i) {
    const double value = x.values[i];
    x.values[i] = value + kStep;
    const double above = loss();
    x.values[i] = value - kStep;
    const double below = loss();
    x.values[i] = value;
    numeric.values[i] = (above - below) / (2 * kStep);
  }
  check_close(what + " against finite differences", gradient, numeric, 1e-6);
}

}  // namespace tunesmith::test
