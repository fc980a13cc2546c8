#include <cmath>

#include "test/harness.h"

namespace tunesmith::test {

namespace {

struct Case {
  int64_t rows, width;
  bool gain, bias, in_place;
  double shift;
  Margin margin;

  std::string text(const char* op) const {
    return op + describe("rows", rows, "width", width, "gain", gain, "bias", bias, "in place", in_place, "shift", shift,
                         "slices", margin.left > 0);
  }
};

Outputs add_scaled(const Device& device, const Case& c) {
  Random random(1);
  const Buffer y = device.inout(Kind::kCompute, random.matrix(c.rows, c.width), c.margin);
  const Buffer x = device.input(Kind::kCompute, random.matrix(c.rows, c.width), c.margin);
  const Buffer gain = device.input(Kind::kWide, random.matrix(1, c.width));
  device->add_scaled(y, x, c.gain ? gain.tensor() : Tensor{}, 0.75, c.shift);
  // A sum of two terms may come out far smaller than they are.
  return {{"y", y.get(), device.tolerance(1, 4), device.tolerance(0, 4)}};
}

Outputs scale_columns(const Device& device, const Case& c) {
  Random random(2);
  const Matrix values = random.matrix(c.rows, c.width);
  const Buffer x =
      c.in_place ? device.inout(Kind::kCompute, values, c.margin) : device.input(Kind::kCompute, values, c.margin);
  const Buffer y = device.output(Kind::kCompute, c.rows, c.width, c.margin);
  const Buffer gain = device.input(Kind::kWide, random.matrix(1, c.width));
  const Buffer bias = device.input(Kind::kWide, random.matrix(1, c.width));
  const Buffer& out = c.in_place ? x : y;
  device->scale_columns(out, x, c.gain ? gain.tensor() : Tensor{}, 0.75, c.shift, c.bias ? bias.tensor() : Tensor{});
  return {{"y", out.get(), device.tolerance(1, 4), device.tolerance(0, 4)}};
}

Outputs column_dots(const Device& device, const Case& c) {
  Random random(3);
  const Buffer a = device.input(Kind::kCompute, random.matrix(c.rows, c.width), c.margin);
  const Buffer b = device.input(Kind::kCompute, random.matrix(c.rows, c.width), c.margin);
  Matrix divisor = random.matrix(1, c.width);
  for (double& value : divisor.values) value += value < 0 ? -0.5 : 0.5;
  const Buffer out = device.inout(Kind::kWide, random.matrix(1, c.width));
  device->column_dots(out, a, b, device.input(Kind::kWide, divisor));
  // A sum over the rows that may happen to come out small.
  const double root = std::sqrt(double(c.rows));
  return {{"out", out.get(), device.tolerance(0, 8 + 2 * root), device.tolerance(0, 4 * root)}};
}

}  // namespace

TEST_CASE("columns: a small case by hand") {
  for (const auto& [name, backend] : backends()) {
    const Device device(*backend, DType::kFloat32, DType::kFloat32);
    Matrix x(2, 2), y(2, 2, 10), gain(1, 2), bias(1, 2), divisor(1, 2);
    x.values = {1, 2, 3, 4};
    gain.values = {2, 3};
    bias.values = {100, 200};
    divisor.values = {2, 4};
    const auto check = [&](const char* op, const Matrix& actual, std::vector<double> expected) {
      INFO(name, ": ", op);
      CHECK(actual.values == expected);
    };
    const Buffer in = device.input(Kind::kCompute, x), factor = device.input(Kind::kWide, gain);
    const Buffer sum = device.inout(Kind::kCompute, y);
    device->add_scaled(sum, in, factor, 2, -3);
    check("add_scaled", sum.get(), {11, 16, 13, 22});
    device->add_scaled(sum, in, {}, -2, 1);
    check("add_scaled without gain", sum.get(), {10, 14, 10, 18});
    const Buffer scaled = device.output(Kind::kCompute, 2, 2);
    device->scale_columns(scaled, in, factor, 0.5, 2, device.input(Kind::kWide, bias));
    check("scale_columns", scaled.get(), {103, 207, 109, 214});
    const Buffer dots = device.inout(Kind::kWide, bias);
    device->column_dots(dots, in, in, device.input(Kind::kWide, divisor));
    check("column_dots", dots.get(), {105, 205});
  }
}

TEST_CASE("columns: backends against the reference") {
  for (const int64_t rows : {1, 3, 67, 300})
    for (const int64_t width : {1, 7, 64, 100, 1003})
      for (const Margin margin : {Margin{}, kSlice}) {
        for (const bool gain : {false, true})
          for (const bool bias : {false, true})
            for (const double shift : {0.0, -1.0}) {
              const Case c{rows, width, gain, bias, bias, shift, margin};
              check_backends(c.text("scale_columns"), [&](const Device& device) { return scale_columns(device, c); });
              if (bias) continue;
              check_backends(c.text("add_scaled"), [&](const Device& device) { return add_scaled(device, c); });
            }
        const Case c{rows, width, false, false, false, 0, margin};
        check_backends(c.text("column_dots"), [&](const Device& device) { return column_dots(device, c); });
      }
}

}  // namespace tunesmith::test
