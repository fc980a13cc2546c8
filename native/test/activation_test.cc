#include <cmath>
#include <limits>

#include "test/harness.h"

namespace tunesmith::test {

namespace {

constexpr Activation kAll[] = {Activation::kSilu, Activation::kGelu, Activation::kGeluTanh, Activation::kRelu};

std::string name_of(Activation activation) {
  constexpr const char* kNames[] = {"silu", "gelu", "gelu_tanh", "relu"};
  return kNames[size_t(activation)];
}

struct Case {
  Activation activation;
  bool gated;
  int64_t rows, width;
  bool in_place;
  Margin margin;
  double scale;  // of what is activated

  int64_t in_width() const { return gated ? 2 * width : width; }
  std::string text() const {
    return "activation " + name_of(activation) +
           describe("gated", gated, "rows", rows, "width", width, "in place", in_place, "slices", margin.left > 0,
                    "scale", scale);
  }
};

Outputs run(const Device& device, const Case& c) {
  Random random(1);
  const Matrix values = random.matrix(c.rows, c.in_width(), c.scale);
  const Buffer in =
      c.in_place ? device.inout(Kind::kCompute, values, c.margin) : device.input(Kind::kCompute, values, c.margin);
  const Buffer dout = device.input(Kind::kCompute, random.matrix(c.rows, c.width), c.margin);
  const Buffer out = device.output(Kind::kCompute, c.rows, c.width, c.margin);
  const Buffer din = device.output(Kind::kCompute, c.rows, c.in_width(), c.margin);
  device->activation_forward(out, in, c.activation);
  device->activation_backward(c.in_place ? in : din, dout, in, c.activation);
  // One rounding; exp of a value of size `scale` is off by as many roundoffs. A sigmoid below float32's smallest normal
  // number may be that or nothing. A slope comes of terms of size 1, which cancel where it crosses 0.
  const double tolerance = device.tolerance(1, 8 + c.scale), floor = c.scale * c.scale * 0x1p-126;
  const double cancelled = device.tolerance(0, c.gated ? c.scale : 1);
  return {{"out", out.get(), tolerance, floor}, {"din", (c.in_place ? in : din).get(), tolerance, floor + cancelled}};
}

}  // namespace

TEST_CASE("activation: gradient against finite differences") {
  const Device device = oracle();
  for (const Activation activation : kAll)
    for (const bool gated : {false, true}) {
      Random random(2);
      const int64_t width = gated ? 10 : 5;
      Matrix in = random.matrix(4, width, 3);
      const Matrix dout = random.matrix(4, 5);
      const Buffer din = device.output(Kind::kCompute, 4, width);
      device->activation_backward(din, device.input(Kind::kCompute, dout), device.input(Kind::kCompute, in),
                                  activation);
      check_gradient("activation " + name_of(activation), din.get(), in, [&] {
        const Buffer out = device.output(Kind::kCompute, 4, 5);
        device->activation_forward(out, device.input(Kind::kCompute, in), activation);
        return dot(out.get(), dout);
      });
    }
}

TEST_CASE("activation: values of PyTorch 2.13") {
  // torch.nn.functional: silu(x), gelu(x), gelu(x, approximate='tanh'), relu(x) in float64.
  const double x[] = {-5, -0.75, 0, 0.5, 3};
  const double expected[4][5] = {
      {-0.033464254621424279, -0.24061597561845527, 0, 0.3112296656009273, 2.8577223804672998},
      {-1.4332578593401202e-06, -0.16997051428265111, 0, 0.34573123063700656, 2.9959503059051098},
      {-2.2917961972623857e-07, -0.17003944483437966, 0, 0.34571400982514394, 2.9963626079182268},
      {0, 0, 0, 0.5, 3}};
  const Device device = oracle();
  for (const Activation activation : kAll) {
    Matrix in(1, 5), values(1, 5);
    std::copy_n(x, 5, in.values.begin());
    std::copy_n(expected[size_t(activation)], 5, values.values.begin());
    const Buffer out = device.output(Kind::kCompute, 1, 5);
    device->activation_forward(out, device.input(Kind::kCompute, in), activation);
    check_close(name_of(activation), out.get(), values, 1e-14);
  }
}

// Of every size from 2^-40 to 2^6, so that each branch and its borders are met; each value by itself, where the other
// tests compare with the root mean square.
TEST_CASE("activation: digits of small and large values") {
  Matrix in(1, 0);
  for (double x = 0x1p-40; x < 64; x *= 1.03)
    for (const double sign : {1.0, -1.0}) in.values.push_back(sign * x);
  in.cols = int64_t(in.values.size());
  const Matrix ones(1, in.cols, 1);
  for (const Activation activation : kAll) {
    const auto run_on = [&](const Device& device, bool backward) {
      const Buffer out = device.output(Kind::kCompute, 1, in.cols);
      const Buffer input = device.input(Kind::kCompute, in);
      if (backward)
        device->activation_backward(out, device.input(Kind::kCompute, ones), input, activation);
      else
        device->activation_forward(out, input, activation);
      return out.get();
    };
    for (const bool backward : {false, true}) {
      const Matrix expected = run_on({reference(), DType::kFloat64, DType::kFloat32}, backward);
      for (const auto& [name, backend] : backends()) {
        const Matrix actual = run_on({*backend, DType::kFloat32, DType::kFloat32}, backward);
        for (size_t i = 0; i < in.values.size(); ++i) {
          const double x = in.values[i];
          // e^-x²'s error grows with its exponent; the exact gelu's is held to that of Φ in float32, as PyTorch's is.
          // Slopes cancel where they cross 0, values do not.
          const bool exact = activation == Activation::kGelu;
          const double exponent = exact ? 0 : activation == Activation::kSilu ? std::abs(x) : x * x;
          const double size = std::abs(expected.values[i]) + (backward && std::abs(x) < 8 ? 0.5 : 0);
          const double allowed =
              ((8 + 2 * exponent) * size + (exact ? std::abs(x) : 0)) * 0x1p-24 + 64 * (1 + exponent) * 0x1p-126;
          if (std::abs(actual.values[i] - expected.values[i]) <= allowed) continue;
          const std::string what = name + ": " + (backward ? "slope of " : "") + name_of(activation);
          FAIL_CHECK(what, " at ", x, ": ", actual.values[i], " instead of ", expected.values[i]);
        }
      }
    }
  }
}

TEST_CASE("activation: NaN stays NaN") {
  for (const auto& [name, backend] : backends())
    for (const Activation activation : kAll) {
      const Device device(*backend, DType::kFloat32, DType::kFloat32);
      const Matrix in(1, 3, std::numeric_limits<double>::quiet_NaN());
      const Buffer out = device.output(Kind::kCompute, 1, 3);
      device->activation_forward(out, device.input(Kind::kCompute, in), activation);
      check_same(name + " " + name_of(activation), out.get(), in);
    }
}

TEST_CASE("activation: backends against the reference") {
  for (const Activation activation : kAll)
    for (const bool gated : {false, true})
      for (const int64_t rows : {1, 3, 67})
        for (const int64_t width : {1, 7, 64, 100, 1003})
          for (const bool in_place : {false, true})
            for (const Margin margin : {Margin{}, kSlice})
              for (const double scale : {3.0, 300.0}) {
                const Case c{activation, gated, rows, width, in_place, margin, scale};
                check_backends(c.text(), [&](const Device& device) { return run(device, c); });
              }
}

}  // namespace tunesmith::test
