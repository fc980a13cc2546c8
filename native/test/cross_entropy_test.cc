#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>

#include "test/harness.h"

namespace tunesmith::test {

namespace {

// Where dlogits go: nowhere, beside the logits, or on their storage with the same row stride in bytes or none to spare.
enum class Into { kNothing, kOwn, kSameRows, kPacked };

struct Case {
  int64_t rows, vocabulary;
  double logits;  // their scale
  Into into;
  Objective objective = {};

  std::string text() const {
    return "cross_entropy" + describe("rows", rows, "vocabulary", vocabulary, "logits up to", logits, "dlogits into",
                                      int(into), "label smoothing", objective.label_smoothing, "z-loss",
                                      objective.z_loss, "dft", objective.dft);
  }
};

struct Result {
  Matrix nll, correct, dlogits;
};

Result cross_entropy(const Device& device, const Matrix& logits, const std::vector<int32_t>& targets,
                     const Matrix& weights, double scale, Into into, const Objective& objective = {}) {
  const int64_t rows = logits.rows, vocabulary = logits.cols;
  const Buffer logits_in = into == Into::kNothing || into == Into::kOwn ? device.input(Kind::kWide, logits, kSlice)
                                                                        : device.inout(Kind::kWide, logits);
  const Buffer own = device.output(Kind::kCompute, rows, vocabulary, kSlice);
  const Buffer nll = device.output(Kind::kWide, 1, rows), correct = device.index_output(rows);
  Tensor dlogits;
  if (into == Into::kOwn) dlogits = own;
  if (into == Into::kSameRows || into == Into::kPacked) {
    dlogits = matrix(logits_in.data(), device.type(), rows, vocabulary);
    if (into == Into::kSameRows)
      dlogits.stride = vocabulary * int64_t(size_of(device.type(Kind::kWide)) / size_of(device.type()));
  }
  const Buffer target_index = device.index(targets), weights_in = device.input(Kind::kWide, weights);
  device->cross_entropy(logits_in, dlogits, nll, static_cast<int32_t*>(correct.data()), target_index.ints(), weights_in,
                        scale, objective);
  return {nll.get(), correct.get(),
          into == Into::kNothing ? Matrix(0, 0) : (into == Into::kOwn ? own : logits_in).get(dlogits)};
}

constexpr double kScale = 0.25;

Outputs run(const Device& device, const Case& c) {
  Random random(1);
  const Matrix logits = random.matrix(c.rows, c.vocabulary, c.logits);
  Matrix weights = random.matrix(1, c.rows);
  for (int64_t r = 0; r < c.rows; ++r)
    weights(0, r) = r % 3 == 2 ? 0 : std::abs(weights(0, r));  // some rows are filler
  std::vector<int32_t> targets = random.integers(c.rows, int32_t(c.vocabulary));
  for (int64_t r = 0; r < c.rows; r += 2) {  // make every other prediction right
    int64_t best = 0;
    for (int64_t v = 1; v < c.vocabulary; ++v)
      if (round_to(DType::kFloat32, logits(r, v)) > round_to(DType::kFloat32, logits(r, best))) best = v;
    targets[size_t(r)] = int32_t(best);
  }
  const Result result = cross_entropy(device, logits, targets, weights, kScale, c.into, c.objective);
  // exp of a difference of logits of size `logits` is off by as many roundoffs, and so is a sum of `vocabulary` of
  // them.
  const double wide = 8 + 2 * c.logits + std::sqrt(double(c.vocabulary));
  // A confident row is a loss, or a gradient at its target, near 0: the logarithm of a total near 1, or 1 less 1.
  Outputs outputs = {{"nll", result.nll, device.tolerance(0, wide), device.tolerance(0, 1)},
                     {"correct", result.correct, 0}};
  if (c.into != Into::kNothing)
    outputs.push_back({"dlogits", result.dlogits, device.tolerance(1, wide), device.tolerance(0, kScale)});
  return outputs;
}

}  // namespace

TEST_CASE("cross_entropy: gradient against finite differences") {
  const Device device = oracle();
  Random random(2);
  Matrix logits = random.matrix(4, 7, 3), weights = random.matrix(1, 4);
  const std::vector<int32_t> targets = {6, 0, 3, 3};
  const Result result = cross_entropy(device, logits, targets, weights, 0.5, Into::kOwn);
  check_gradient("cross_entropy dlogits", result.dlogits, logits, [&] {
    return 0.5 * dot(cross_entropy(device, logits, targets, weights, 0.5, Into::kNothing).nll, weights);
  });
}

TEST_CASE("cross_entropy: label smoothing and z-loss against finite differences") {
  const Device device = oracle();
  Random random(3);
  Matrix logits = random.matrix(4, 7, 3), weights = random.matrix(1, 4);
  const std::vector<int32_t> targets = {6, 0, 3, 3};
  for (const Objective& objective : {Objective{0.1, 0, false}, Objective{0, 0.2, false}, Objective{0.3, 0.05, false}}) {
    const Result result = cross_entropy(device, logits, targets, weights, 0.5, Into::kOwn, objective);
    check_gradient("cross_entropy dlogits", result.dlogits, logits, [&] {
      return 0.5 * dot(cross_entropy(device, logits, targets, weights, 0.5, Into::kNothing, objective).nll, weights);
    });
  }
}

// DFT's probability is a constant to the gradient: that of cross-entropy times it.
TEST_CASE("cross_entropy: dft is cross-entropy weighed by the target's probability") {
  const Device device = oracle();
  Random random(4);
  const Matrix logits = random.matrix(5, 9, 3), weights = random.matrix(1, 5);
  const std::vector<int32_t> targets = {6, 0, 3, 3, 8};
  const Result plain = cross_entropy(device, logits, targets, weights, 0.5, Into::kOwn);
  const Result dft = cross_entropy(device, logits, targets, weights, 0.5, Into::kOwn, {0, 0, true});
  Matrix loss = plain.nll, dlogits = plain.dlogits;
  for (int64_t r = 0; r < 5; ++r) {
    const double p = std::exp(-plain.nll(0, r));
    loss(0, r) *= p;
    for (int64_t c = 0; c < 9; ++c) dlogits(r, c) *= p;
  }
  check_close("dft loss", dft.nll, loss, device.tolerance(0, 8));
  check_close("dft dlogits", dft.dlogits, dlogits, device.tolerance(0, 8));
}

TEST_CASE("cross_entropy: losses and gradients of PyTorch") {
  std::ifstream file(TUNESMITH_GOLDEN_DIR "/losses.txt");
  REQUIRE_MESSAGE(file.good(), "test/golden/losses.txt is missing");
  int64_t rows = 0, vocabulary = 0;
  file >> rows >> vocabulary;
  const auto numbers = [&](Matrix matrix) {
    std::string text;
    for (double& value : matrix.values) {
      REQUIRE(bool(file >> text));
      value = std::strtod(text.c_str(), nullptr);
    }
    return matrix;
  };
  const Matrix logits = numbers(Matrix(rows, vocabulary));
  std::vector<int32_t> targets(static_cast<size_t>(rows));
  for (int32_t& target : targets) file >> target;
  int cases = 0;
  std::string smoothing, z_loss;
  for (int dft; file >> smoothing >> z_loss >> dft; ++cases) {
    const Objective objective{std::strtod(smoothing.c_str(), nullptr), std::strtod(z_loss.c_str(), nullptr), dft == 1};
    const Matrix loss = numbers(Matrix(1, rows)), dlogits = numbers(Matrix(rows, vocabulary));
    const auto check = [&](const std::string& name, const Device& device) {
      const Result result = cross_entropy(device, logits, targets, Matrix(1, rows, 1), 1, Into::kOwn, objective);
      const std::string what = name + ", objective " + std::to_string(cases);
      check_close(what + ": loss", result.nll, loss, device.tolerance(0, 20));
      check_close(what + ": dlogits", result.dlogits, dlogits, device.tolerance(0, 20), device.tolerance(0, 2));
    };
    for (const auto& [name, backend] : backends()) check(name, {*backend, DType::kFloat32, DType::kFloat32});
    check("reference in float64", oracle());
  }
  CHECK(cases == 5);
}

TEST_CASE("cross_entropy: other objectives, backends against the reference") {
  for (const int64_t rows : {3, 65})
    for (const int64_t vocabulary : {1, 7, 1003, 5003})
      for (const Into into : {Into::kNothing, Into::kOwn, Into::kPacked})
        for (const Objective& objective : {Objective{0.1, 0, false}, Objective{0, 1e-3, false},
                                           Objective{0.2, 1e-2, false}, Objective{0, 0, true}}) {
          const Case c{rows, vocabulary, 5, into, objective};
          check_backends(c.text(), [&](const Device& device) { return run(device, c); });
        }
}

TEST_CASE("cross_entropy: backends against the reference") {
  for (const int64_t rows : {0, 1, 3, 65})
    for (const int64_t vocabulary : {1, 7, 511, 1003, 5003})
      for (const double logits : {5.0, 100.0})
        for (const Into into : {Into::kNothing, Into::kOwn, Into::kSameRows, Into::kPacked}) {
          const Case c{rows, vocabulary, logits, into};
          check_backends(c.text(), [&](const Device& device) { return run(device, c); });
        }
}

TEST_CASE("cross_entropy: logits far beyond the range of exp") {
  const Matrix weights(1, 4, 1);
  Matrix logits(4, 3), nll(1, 4), correct(1, 4), dlogits(4, 3);
  logits.values = {1e4, -1e4, 0, /**/ -1e4, 1e4, 1e4, /**/ 1e4, 1e4 - 1, -1e4, /**/ -1e4, -1e4, -1e4};
  const std::vector<int32_t> targets = {1, 0, 0, 2};
  const double p = 1 / (1 + std::exp(-1.0));
  nll.values = {2e4, 2e4 + std::log(2.0), -std::log(p), std::log(3.0)};
  correct.values = {0, 0, 1, 0};
  dlogits.values = {1, -1, 0, /**/ -1, 0.5, 0.5, /**/ p - 1, 1 - p, 0, /**/ 1 / 3.0, 1 / 3.0, -2 / 3.0};
  for (const auto& [name, backend] : backends())
    for (const DType type : {DType::kFloat32, DType::kBFloat16}) {
      if (!backend->supports(type)) continue;
      const Device device(*backend, type, type);
      const Result result = cross_entropy(device, logits, targets, weights, 1, Into::kOwn);
      check_close(name + ": nll of huge logits", result.nll, nll, device.tolerance(0, 4));
      check_same(name + ": correct of huge logits", result.correct, correct);
      check_close(name + ": dlogits of huge logits", result.dlogits, dlogits, device.tolerance(1, 8));
    }
}

// However a backend divides a row: the largest logit counts wherever it lies, before or after the target.
TEST_CASE("cross_entropy: one logit above all others in a large vocabulary") {
  const int64_t vocabulary = 9001;
  const std::vector<int32_t> places = {0, 1000, 2047, 2048, 4100, 6143, 6145, 8191, 9000};
  const int64_t rows = int64_t(places.size());
  for (const int32_t target : {3, 5000, 8999})
    for (const auto& [name, backend] : backends()) {
      const Device device(*backend, DType::kFloat32, DType::kFloat32);
      Matrix logits(rows, vocabulary), dlogits(rows, vocabulary);
      for (int64_t r = 0; r < rows; ++r) {
        logits(r, places[size_t(r)]) = 200, logits(r, target) = 10;
        dlogits(r, places[size_t(r)]) = 1, dlogits(r, target) = -1;
      }
      const std::vector<int32_t> targets(places.size(), target);
      const Result result = cross_entropy(device, logits, targets, Matrix(1, rows, 1), 1, Into::kOwn);
      const std::string what = name + ", target " + std::to_string(target);
      check_close(what + ": nll", result.nll, Matrix(1, rows, 190), device.tolerance(0, 4));
      check_same(what + ": correct", result.correct, Matrix(1, rows));
      check_close(what + ": dlogits", result.dlogits, dlogits, device.tolerance(0, 4));
    }
}

TEST_CASE("cross_entropy: the first of equal logits is the prediction") {
  for (const int64_t vocabulary : {2, 7, 70, 1003})
    for (const auto& [name, backend] : backends()) {
      // Row r has its largest logit at `ties[r]` and at the last place.
      const std::vector<int32_t> ties = {0, int32_t(vocabulary / 2), int32_t(vocabulary - 1)};
      Matrix logits(3, vocabulary, -1), correct(1, 3, 1);
      for (int64_t r = 0; r < 3; ++r) logits(r, ties[size_t(r)]) = logits(r, vocabulary - 1) = 2;
      const Device device(*backend, DType::kFloat32, DType::kFloat32);
      const std::string what = name + ": correct with ties in a vocabulary of " + std::to_string(vocabulary);
      const auto predicted = [&](const std::vector<int32_t>& targets) {
        return cross_entropy(device, logits, targets, Matrix(1, 3, 1), 1, Into::kNothing).correct;
      };
      check_same(what, predicted(ties), correct);
      Matrix last(1, 3);
      for (int64_t r = 0; r < 3; ++r) last(0, r) = ties[size_t(r)] == vocabulary - 1;
      check_same(what + ", target last", predicted(std::vector<int32_t>(3, int32_t(vocabulary - 1))), last);
    }
}

}  // namespace tunesmith::test
