#include <cmath>

#include "test/harness.h"

namespace tunesmith::test {

namespace {

constexpr int32_t kPositions = 50;

// cos and sin of position · 10000^(-2i/D).
Matrix table(int32_t head_dim) {
  Matrix values(kPositions, head_dim);
  for (int32_t p = 0; p < kPositions; ++p)
    for (int32_t i = 0; i < head_dim / 2; ++i) {
      const double angle = p * std::pow(10000.0, -2.0 * i / head_dim);
      values(p, i) = std::cos(angle);
      values(p, head_dim / 2 + i) = std::sin(angle);
    }
  return values;
}

}  // namespace

TEST_CASE("rope: the inverse is the gradient, and undoes it") {
  const Device device = oracle();
  Random random(1);
  Matrix x = random.matrix(3, 16);
  const Matrix dy = random.matrix(3, 16);
  const Buffer positions = device.index({0, 49, 7}), angles = device.input(Kind::kWide, table(8));
  const auto rotated = [&](const Matrix& values, bool inverse) {
    const Buffer buffer = device.inout(Kind::kCompute, values);
    device->rope(buffer, 2, 8, angles, positions.ints(), inverse);
    return buffer.get();
  };
  check_gradient("rope dx", rotated(dy, true), x, [&] { return dot(rotated(x, false), dy); });
  check_close("rope, there and back", rotated(rotated(x, false), true), x, 1e-14);
}

TEST_CASE("rope: a quarter turn, by hand") {
  const Device device = oracle();
  Matrix x(1, 4), angles(1, 4), expected(1, 4);
  x.values = {1, 2, 3, 4};       // halves a = (1, 2), b = (3, 4)
  angles.values = {0, 1, 1, 0};  // first pair by 90°, second not at all
  expected.values = {-3, 2, 1, 4};
  const Buffer buffer = device.inout(Kind::kCompute, x);
  device->rope(buffer, 1, 4, device.input(Kind::kWide, angles), device.index({0}).ints(), false);
  check_same("rope by a quarter turn", buffer.get(), expected);
}

TEST_CASE("rope: part of a head, and a table with a factor") {
  const Device device = oracle();
  Random random(3);
  Matrix x = random.matrix(3, 20), angles = table(6);
  for (double& value : angles.values) value *= 1.3;
  const Matrix dy = random.matrix(3, 20);
  const Buffer positions = device.index({3, 49, 7}), table_in = device.input(Kind::kWide, angles);
  const auto rotated = [&](const Matrix& values, bool inverse) {
    const Buffer buffer = device.inout(Kind::kCompute, values);
    device->rope(buffer, 2, 10, table_in, positions.ints(), inverse);
    return buffer.get();
  };
  check_gradient("partial rope dx", rotated(dy, true), x, [&] { return dot(rotated(x, false), dy); });
  const Matrix after = rotated(x, false);
  for (int64_t r = 0; r < 3; ++r)
    for (const int64_t head : {0, 10}) {
      double before_norm = 0, after_norm = 0;
      for (int64_t i = 0; i < 6; ++i) {
        before_norm += std::pow(1.3 * x(r, head + i), 2);
        after_norm += std::pow(after(r, head + i), 2);
      }
      CHECK(std::abs(after_norm / before_norm - 1) < 1e-14);
      for (int64_t i = 6; i < 10; ++i) CHECK(after(r, head + i) == x(r, head + i));
    }
}

TEST_CASE("rope: backends against the reference") {
  for (const int32_t head_dim : {8, 16, 24, 64, 80, 128, 256})
    for (const int32_t heads : {1, 3})
      for (const int64_t rows : {1, 5, 67})
        for (const Margin margin : {Margin{}, kSlice})
          for (const auto& [inverse, rotary_dim] :
               {std::pair{false, head_dim}, {true, head_dim}, {false, head_dim / 2}, {true, 2}})
            check_backends("rope" + describe("rows", rows, "heads", heads, "head_dim", head_dim, "rotary_dim",
                                             rotary_dim, "inverse", inverse, "slices", margin.left > 0),
                           [&, inverse = inverse, rotary_dim = rotary_dim](const Device& device) -> Outputs {
                             Random random(2);
                             const Buffer positions = device.index(random.integers(rows, kPositions));
                             const Buffer angles = device.input(Kind::kWide, table(rotary_dim));
                             const Buffer x =
                                 device.inout(Kind::kCompute, random.matrix(rows, heads * head_dim), margin);
                             device->rope(x, heads, head_dim, angles, positions.ints(), inverse);
                             return {{"x", x.get(), device.tolerance(1, 4)}};
                           });
}

}  // namespace tunesmith::test
