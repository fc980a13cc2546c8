// Every update rule over 50 steps against its reference implementation: test/golden/optimizers.txt, made by
// scripts/python/make_optimizer_golden.py.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>

#include "core/dynamic_code.h"
#include "test/harness.h"

namespace tunesmith::test {

namespace {

constexpr double kRate = 1e-2, kDecay = 0.1, kBeta1 = 0.9, kBeta2 = 0.95, kEpsilon = 1e-8, kMomentum = 0.9;
constexpr int kShown[] = {1, 10, 50};

uint32_t mix(uint32_t x) {
  x = (x ^ x >> 16) * 0x85EBCA6Bu;
  x = (x ^ x >> 13) * 0xC2B2AE35u;
  return x ^ x >> 16;
}

// Step 0 gives the weights; see the script.
Matrix values(int step, int64_t rows, int64_t cols) {
  Matrix result(rows, cols);
  for (int64_t i = 0; i < rows * cols; ++i) {
    const double uniform = double(mix(uint32_t(step * 100003 + i)) >> 8) * 0x1p-24 - 0.5;
    result.values[size_t(i)] = step == 0 ? uniform : i % 11 == 3 ? 0 : std::ldexp(uniform, -int(i % 13));
  }
  return result;
}

struct Golden {
  std::string name;
  int64_t rows = 0, cols = 0;
  std::vector<Matrix> shown;  // weights after the steps of kShown
  std::vector<double> m_codes, v_codes, m_absmax, v_absmax;
};

std::vector<Golden> golden() {
  std::ifstream file(TUNESMITH_GOLDEN_DIR "/optimizers.txt");
  REQUIRE_MESSAGE(file.good(), "test/golden/optimizers.txt is missing");
  const auto numbers = [&](int64_t count) {
    std::vector<double> result;
    std::string text;
    for (int64_t i = 0; i < count; ++i) {
      REQUIRE(bool(file >> text));
      result.push_back(std::strtod(text.c_str(), nullptr));
    }
    return result;
  };
  std::vector<Golden> cases;
  Golden next;
  while (file >> next.name >> next.rows >> next.cols) {
    next.shown.assign(3, Matrix(next.rows, next.cols));
    for (Matrix& weights : next.shown) weights.values = numbers(next.rows * next.cols);
    if (next.name == "adamw_8bit") {
      const int64_t size = next.rows * next.cols, blocks = (size + kDynamicBlock - 1) / kDynamicBlock;
      next.m_codes = numbers(size);
      next.v_codes = numbers(size);
      next.m_absmax = numbers(blocks);
      next.v_absmax = numbers(blocks);
    }
    cases.push_back(next);
    next = {};
  }
  return cases;
}

// The state of one run, and its steps.
class Run {
 public:
  Run(const Device& device, const Golden& golden)
      : device_(device),
        golden_(golden),
        weight_(device.inout(Kind::kWide, values(0, golden.rows, golden.cols))),
        m_(device.inout(Kind::kWide, Matrix(golden.rows, golden.cols))),
        v_(device.inout(Kind::kWide, Matrix(golden.rows, golden.cols))),
        row_(device.inout(Kind::kWide, Matrix(1, golden.rows))),
        col_(device.inout(Kind::kWide, Matrix(1, golden.cols))),
        scratch_(device.inout(Kind::kWide, Matrix(1, muon_scratch_size(golden.rows, golden.cols)))) {}

  Matrix weights() const { return weight_.get(); }

  void step(int number) {
    const std::string& name = golden_.name;
    const double rate = kRate * (1 - (number - 1) / 60.0);
    const Buffer grad = device_.input(Kind::kWide, values(number, golden_.rows, golden_.cols));
    const double correction1 = 1 - std::pow(kBeta1, number), correction2 = 1 - std::pow(kBeta2, number);
    if (name == "adamw")
      device_->adamw(weight_, m_, v_, grad, {rate, kBeta1, kBeta2, kEpsilon, kDecay, correction1, correction2, 1});
    else if (name == "lion")
      device_->lion(weight_, m_, grad, {rate, kBeta1, kBeta2, kDecay, 1});
    else if (name == "sgd")
      device_->sgd(weight_, {}, grad, {rate, 0, kDecay, 1});
    else if (name == "momentum")
      device_->sgd(weight_, m_, grad, {rate, kMomentum, kDecay, 1});
    else if (name == "muon")
      device_->muon(weight_, m_, grad, scratch_, {rate, kMomentum, kDecay, 1});
    else if (name == "adafactor" || name == "adafactor_vector")
      device_->adafactor(weight_, name == "adafactor" ? row_.tensor() : Tensor{}, col_, grad,
                         {rate, 1 - std::pow(number, -0.8), kDecay, 1});
    else
      FAIL("no rule named ", name);
  }

 private:
  const Device& device_;
  const Golden& golden_;
  Buffer weight_, m_, v_, row_, col_, scratch_;
};

}  // namespace

TEST_CASE("optimizers: 50 steps as their reference implementations make them") {
  int seen = 0;
  for (const Golden& expected : golden()) {
    if (expected.name == "adamw_8bit") continue;
    ++seen;
    const auto check = [&](const std::string& backend, const Device& device) {
      Run run(device, expected);
      size_t shown = 0;
      for (int number = 1; number <= 50; ++number) {
        run.step(number);
        if (number != kShown[shown]) continue;
        // Newton-Schulz multiplies rounding errors of small singular values by up to 3.4445^5 = 485.
        const double roundings = expected.name == "muon" ? 500 : 30;
        check_close(backend + describe("optimizer", expected.name, "rows", expected.rows, "cols", expected.cols, "step",
                                       number),
                    run.weights(), expected.shown[shown], device.tolerance(0, roundings));
        ++shown;
      }
    };
    for (const auto& [name, backend] : backends())
      check(name + " in float32", {*backend, DType::kFloat32, DType::kFloat32});
    check("reference in float64", oracle());
  }
  CHECK(seen == 12);
}

TEST_CASE("adamw_8bit: 50 steps give bitsandbytes' codes and weights, bit for bit") {
  for (const Golden& expected : golden()) {
    if (expected.name != "adamw_8bit") continue;
    const int64_t size = expected.cols, blocks = int64_t(expected.m_absmax.size());
    for (const auto& [name, backend] : backends()) {
      const Device device{*backend, DType::kFloat32, DType::kFloat32};
      const Buffer weight = device.inout(Kind::kWide, values(0, 1, size));
      const Buffer m(*backend, size_t(size)), v(*backend, size_t(size));
      const Buffer m_absmax = device.inout(Kind::kWide, Matrix(1, blocks));
      const Buffer v_absmax = device.inout(Kind::kWide, Matrix(1, blocks));
      for (const Buffer* codes : {&m, &v}) (*backend).zero(codes->data(), size_t(size));
      const Moments8 moments{static_cast<uint8_t*>(m.data()), m_absmax.tensor().as<float>(),
                             static_cast<uint8_t*>(v.data()), v_absmax.tensor().as<float>()};
      size_t shown = 0;
      for (int number = 1; number <= 50; ++number) {
        const Buffer grad = device.input(Kind::kWide, values(number, 1, size));
        device->adamw_8bit(weight, moments, grad,
                           {kRate * (1 - (number - 1) / 60.0), kBeta1, kBeta2, kEpsilon, kDecay,
                            1 - std::pow(kBeta1, number), 1 - std::pow(kBeta2, number), 1});
        if (number != kShown[shown]) continue;
        check_same(name + ": adamw_8bit after step " + std::to_string(number), weight.get(), expected.shown[shown]);
        ++shown;
      }
      std::vector<uint8_t> codes(static_cast<size_t>(size));
      for (const auto& [buffer, wanted] : {std::pair{&m, &expected.m_codes}, {&v, &expected.v_codes}}) {
        (*backend).download(codes.data(), buffer->data(), codes.size());
        for (size_t i = 0; i < codes.size(); ++i) {
          INFO(name, ": code ", i);
          REQUIRE(codes[i] == int((*wanted)[i]));
        }
      }
      CHECK(m_absmax.get().values == expected.m_absmax);
      CHECK(v_absmax.get().values == expected.v_absmax);
    }
  }
}

// The codes that a search over all 256 values finds, at and beside every border between two of them.
TEST_CASE("dynamic codes: the nearest, the even one half-way, signs kept") {
  for (const bool is_signed : {true, false}) {
    const DynamicCode& code = is_signed ? signed_dynamic_code() : unsigned_dynamic_code();
    CHECK(std::is_sorted(code.begin(), code.end()));
    CHECK(std::adjacent_find(code.begin(), code.end()) == code.end());
    std::vector<float> points{0.0f, -0.0f, 1.0f, -1.0f, 1e-30f, -1e-30f, 1e-45f, -1e-45f};
    for (size_t i = 0; i < 256; ++i) {
      points.push_back(code[i]);
      if (i == 255) break;
      const float middle = (code[i] + code[i + 1]) * 0.5f;
      for (const float x : {std::nextafterf(middle, -2.0f), middle, std::nextafterf(middle, 2.0f)}) points.push_back(x);
    }
    Random random(9);
    for (const double value : random.matrix(1, 20000).values) points.push_back(float(value * value * value));
    int tested = 0;
    for (const float x : points) {
      if (!is_signed && std::signbit(x)) continue;
      size_t best = 0;
      for (size_t i = 1; i < 256; ++i) {
        const float middle = (code[i - 1] + code[i]) * 0.5f;
        if (x > middle || (x == middle && i % 2 == 0)) best = i;
      }
      if (is_signed && std::signbit(x) && code[best] == 0) --best;
      uint8_t found = 0;
      if (is_signed)
        encode_signed(&found, &x, 1);
      else
        encode_unsigned(&found, &x, 1);
      INFO(x);
      REQUIRE(int(found) == int(best));
      ++tested;
    }
    CHECK(tested > 9000);
  }
}

}  // namespace tunesmith::test
