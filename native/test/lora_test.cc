#include <cmath>

#include "test/harness.h"

namespace tunesmith::test {

namespace {

struct Case {
  int64_t n, k, rank;
  bool gain;

  std::string text(const char* op) const { return op + describe("n", n, "k", k, "rank", rank, "gain", gain); }
};

constexpr double kScale = 0.7;

struct Inputs {
  Matrix weight, a, b, magnitude;
};

Inputs inputs(const Case& c) {
  Random random(1);
  Inputs in{random.matrix(c.n, c.k), random.matrix(c.rank, c.k), random.matrix(c.n, c.rank), random.matrix(1, c.n)};
  // Away from 0, so that no row's norm is what a cancellation leaves over.
  for (double& value : in.weight.values) value += (value < 0 ? -kScale : kScale) * double(c.rank);
  for (Matrix* matrix : {&in.weight, &in.a, &in.b, &in.magnitude}) *matrix = matrix->rounded(DType::kFloat32);
  return in;
}

Outputs norm(const Device& device, const Case& c) {
  const Inputs in = inputs(c);
  const Buffer out = device.output(Kind::kWide, 1, c.n), gain = device.output(Kind::kWide, 1, c.n);
  const Buffer magnitude = device.input(Kind::kWide, in.magnitude);
  device->lora_norm(out, c.gain ? gain.tensor() : Tensor{}, c.gain ? magnitude.tensor() : Tensor{},
                    {device.input(Kind::kWide, in.weight), device.type()}, 0, device.input(Kind::kWide, in.a),
                    device.input(Kind::kWide, in.b), kScale);
  const double tolerance = device.tolerance(0, 8 + 4 * double(c.rank));
  if (!c.gain) return {{"norm", out.get(), tolerance}};
  return {{"norm", out.get(), tolerance}, {"gain", gain.get(), tolerance}};
}

Outputs merge(const Device& device, const Case& c) {
  const Inputs in = inputs(c);
  const Buffer weight = device.inout(Kind::kWide, in.weight), gain = device.input(Kind::kWide, in.magnitude);
  device->lora_merge(weight, device.input(Kind::kWide, in.a), device.input(Kind::kWide, in.b), kScale,
                     c.gain ? gain.tensor() : Tensor{});
  // Terms of up to rank times a weight may cancel.
  const double rank = double(c.rank);
  return {{"weight", weight.get(), device.tolerance(0, 8 + 2 * rank), device.tolerance(0, 4 * rank)}};
}

}  // namespace

TEST_CASE("lora: the merged weight multiplies as weight and update apart, and its rows have the norms") {
  const Device device = oracle();
  const Case c{5, 7, 3, true};
  const Inputs in = inputs(c);
  const Buffer weight = device.inout(Kind::kWide, in.weight), norm = device.output(Kind::kWide, 1, c.n);
  const Buffer gain = device.output(Kind::kWide, 1, c.n), a = device.input(Kind::kWide, in.a);
  const Buffer b = device.input(Kind::kWide, in.b), magnitude = device.input(Kind::kWide, in.magnitude);
  device->lora_norm(norm, gain, magnitude, {weight, device.type()}, 0, a, b, kScale);
  device->lora_merge(weight, a, b, kScale, gain);
  const Matrix merged = weight.get(), norms = norm.get();
  for (int64_t n = 0; n < c.n; ++n) {
    double squares = 0;
    for (int64_t k = 0; k < c.k; ++k) {
      double sum = in.weight(n, k);
      for (int64_t r = 0; r < c.rank; ++r) sum += kScale * in.b(n, r) * in.a(r, k);
      CHECK(merged(n, k) == doctest::Approx(in.magnitude(0, n) / norms(0, n) * sum).epsilon(1e-12));
      squares += merged(n, k) * merged(n, k);
    }
    // DoRA's meaning: the length of a row is its magnitude, whatever the update.
    CHECK(std::sqrt(squares) == doctest::Approx(std::abs(in.magnitude(0, n))).epsilon(1e-12));
  }
}

TEST_CASE("lora: backends against the reference") {
  for (const int64_t n : {1, 3, 67})
    for (const int64_t k : {1, 7, 64, 100, 1003})
      for (const int64_t rank : {1, 5, 16})
        for (const bool gain : {false, true}) {
          const Case c{n, k, rank, gain};
          check_backends(c.text("lora_norm"), [&](const Device& device) { return norm(device, c); });
          check_backends(c.text("lora_merge"), [&](const Device& device) { return merge(device, c); });
        }
}

}  // namespace tunesmith::test
