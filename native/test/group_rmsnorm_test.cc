#include <cmath>

#include "test/harness.h"

namespace tunesmith::test {

namespace {

constexpr double kEpsilon = 1e-5;

struct Case {
  int64_t rows;
  int32_t groups;
  int64_t width;  // of a group
  double offset;
  bool in_place;
  Margin margin;
  double scale;  // of x: a small one makes epsilon matter

  std::string text() const {
    return "group_rmsnorm" + describe("rows", rows, "groups", groups, "width", width, "offset", offset, "in place",
                                      in_place, "slices", margin.left > 0, "scale", scale);
  }
};

Outputs run(const Device& device, const Case& c) {
  Random random(1);
  const int64_t cols = c.groups * c.width;
  const Matrix x = random.matrix(c.rows, cols, c.scale), dy = random.matrix(c.rows, cols);
  const Buffer in = device.input(Kind::kCompute, x, c.margin),
               weight = device.input(Kind::kWide, random.matrix(1, c.width));
  const Buffer y =
      c.in_place ? device.inout(Kind::kCompute, x, c.margin) : device.output(Kind::kCompute, c.rows, cols, c.margin);
  device->group_rmsnorm_forward(y, c.in_place ? y : in, c.groups, weight, c.offset, kEpsilon);
  const Buffer dy_in = device.inout(Kind::kCompute, dy, c.margin);
  const Buffer dx = device.output(Kind::kCompute, c.rows, cols, c.margin);
  const Buffer dweight = device.inout(Kind::kWide, random.matrix(1, c.width));
  const Buffer dx_alone = device.output(Kind::kCompute, c.rows, cols);
  device->group_rmsnorm_backward(dx_alone, Tensor(), dy_in, in, c.groups, weight, c.offset, kEpsilon);
  device->group_rmsnorm_backward(c.in_place ? dy_in : dx, dweight, dy_in, in, c.groups, weight, c.offset, kEpsilon);

  check_same(c.text() + ": dx without dweight", dx_alone.get(), (c.in_place ? dy_in : dx).get());

  // As in rmsnorm_test.cc; dx comes of terms of size 1/|x|, which cancel to nothing in a group of one.
  const double root = std::sqrt(double(c.width)), sums = std::sqrt(double(c.rows * c.groups));
  return {{"y", y.get(), device.tolerance(1, 4 + root)},
          {"dx", (c.in_place ? dy_in : dx).get(), device.tolerance(1, 8 + 4 * root),
           device.tolerance(0, 2 * (1 + c.offset) * root / c.scale)},
          {"dweight", dweight.get(), device.tolerance(0, 8 + root + 2 * sums), device.tolerance(0, sums)}};
}

}  // namespace

TEST_CASE("group_rmsnorm: gradients against finite differences") {
  const Device device = oracle();
  for (const int32_t groups : {1, 3})
    for (const double offset : {0.0, 1.0}) {
      const int64_t rows = 3, width = 6, cols = groups * width;
      Random random(3);
      Matrix x = random.matrix(rows, cols), weight = random.matrix(1, width);
      const Matrix dy = random.matrix(rows, cols);
      const auto loss = [&] {
        const Buffer y = device.output(Kind::kCompute, rows, cols);
        device->group_rmsnorm_forward(y, device.input(Kind::kCompute, x), groups, device.input(Kind::kWide, weight),
                                      offset, 0.1);
        return dot(y.get(), dy);
      };
      const Buffer dx = device.output(Kind::kCompute, rows, cols),
                   dweight = device.inout(Kind::kWide, Matrix(1, width));
      device->group_rmsnorm_backward(dx, dweight, device.input(Kind::kCompute, dy), device.input(Kind::kCompute, x),
                                     groups, device.input(Kind::kWide, weight), offset, 0.1);
      check_gradient("group_rmsnorm dx", dx.get(), x, loss);
      check_gradient("group_rmsnorm dweight", dweight.get(), weight, loss);
    }
}

TEST_CASE("group_rmsnorm: backends against the reference") {
  for (const int64_t rows : {1, 3, 67})
    for (const auto& [groups, width] : {std::pair{1, 1}, {1, 7}, {1, 576}, {1, 1003}, {3, 10}, {9, 64}, {2, 80}})
      for (const double offset : {0.0, 1.0})
        for (const bool in_place : {false, true})
          for (const Margin margin : {Margin{}, kSlice})
            for (const double scale : {1.0, 1e-3}) {
              const Case c{rows, groups, width, offset, in_place, margin, scale};
              check_backends(c.text(), [&](const Device& device) { return run(device, c); });
            }
}

}  // namespace tunesmith::test
