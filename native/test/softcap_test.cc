#include <cmath>
#include <limits>

#include "test/harness.h"

namespace tunesmith::test {

namespace {

Outputs run(const Device& device, int64_t rows, int64_t width, Margin margin, double cap, double scale) {
  Random random(1);
  const Buffer x = device.inout(Kind::kWide, random.matrix(rows, width, scale));
  device->softcap_forward(x, cap);
  // The slope of what the reference made: judged by itself.
  Matrix y = Random(2).matrix(rows, width, scale);
  for (double& value : y.values) value = cap * std::tanh(value / cap);
  const Buffer dx = device.inout(Kind::kCompute, random.matrix(rows, width), margin);
  device->softcap_backward(dx, device.input(Kind::kWide, y), cap);
  return {{"x", x.get(), device.tolerance(0, 4)}, {"dx", dx.get(), device.tolerance(1, 4), device.tolerance(0, 2)}};
}

}  // namespace

TEST_CASE("softcap: gradient against finite differences") {
  const Device device = oracle();
  Random random(3);
  Matrix x = random.matrix(3, 5, 4);
  const Matrix dy = random.matrix(3, 5);
  const auto capped = [&] {
    const Buffer y = device.inout(Kind::kWide, x);
    device->softcap_forward(y, 3);
    return y.get();
  };
  const Buffer dx = device.inout(Kind::kCompute, dy);
  device->softcap_backward(dx, device.input(Kind::kWide, capped()), 3);
  check_gradient("softcap dx", dx.get(), x, [&] { return dot(capped(), dy); });
}

TEST_CASE("softcap: digits of small and large values") {
  Matrix in(1, 0);
  for (double x = 0x1p-40; x < 64; x *= 1.03)
    for (const double sign : {1.0, -1.0}) in.values.push_back(sign * x);
  in.cols = int64_t(in.values.size());
  const auto run_on = [&](const Device& device) {
    const Buffer x = device.inout(Kind::kWide, in);
    device->softcap_forward(x, 1);
    return x.get();
  };
  const Matrix expected = run_on({reference(), DType::kFloat64, DType::kFloat32});
  for (const auto& [name, backend] : backends()) {
    const Matrix actual = run_on({*backend, DType::kFloat32, DType::kFloat32});
    for (size_t i = 0; i < in.values.size(); ++i)
      if (!(std::abs(actual.values[i] / expected.values[i] - 1) <= 4 * 0x1p-24))
        FAIL_CHECK(name, ": tanh ", in.values[i], " is ", actual.values[i], " instead of ", expected.values[i]);
  }
}

TEST_CASE("softcap: NaN and infinity") {
  for (const auto& [name, backend] : backends()) {
    const Device device(*backend, DType::kFloat32, DType::kFloat32);
    Matrix in(1, 3), expected(1, 3);
    const double infinity = std::numeric_limits<double>::infinity();
    in.values = {std::nan(""), infinity, -infinity};
    expected.values = {std::nan(""), 5, -5};
    const Buffer x = device.inout(Kind::kWide, in);
    device->softcap_forward(x, 5);
    check_same(name, x.get(), expected);
  }
}

TEST_CASE("softcap: backends against the reference") {
  for (const int64_t rows : {1, 3, 67})
    for (const int64_t width : {1, 7, 64, 1003})
      for (const Margin margin : {Margin{}, kSlice})
        for (const double scale : {1.0, 100.0})
          check_backends("softcap" + describe("rows", rows, "width", width, "slices", margin.left > 0, "scale", scale),
                         [&](const Device& device) { return run(device, rows, width, margin, 30, scale); });
}

}  // namespace tunesmith::test
