#include <cmath>
#include <limits>

#include "test/harness.h"

namespace tunesmith::test {

namespace {

constexpr DType kFloats[] = {DType::kFloat64, DType::kFloat32, DType::kBFloat16, DType::kFloat16};

struct Format {
  int digits;        // significant bits
  int min_exponent;  // of the smallest normal number
  double overflow;   // the first magnitude that rounds to infinity
};

Format format_of(DType type) {
  if (type == DType::kFloat64) return {53, -1022, std::numeric_limits<double>::infinity()};
  if (type == DType::kFloat32) return {24, -126, 0x1.ffffffp127};
  if (type == DType::kBFloat16) return {8, -126, 0x1.ffp127};
  return {11, -14, 0x1.ffep15};
}

// Rounding to nearest, ties to even, from the definition of the format: a whole number of its last places.
double nearest(DType type, double value) {
  const Format format = format_of(type);
  if (!std::isfinite(value) || value == 0 || type == DType::kFloat64) return value;
  if (std::abs(value) >= format.overflow) return std::copysign(std::numeric_limits<double>::infinity(), value);
  const int last_place = std::max(std::ilogb(value), format.min_exponent) - (format.digits - 1);
  return std::ldexp(std::nearbyint(std::ldexp(value, -last_place)), last_place);
}

}  // namespace

TEST_CASE("cast: between any two float types") {
  Random random(1);
  Matrix values = random.matrix(9, 67, 4);
  const double special[] = {0.0,         -0.0,        1.0,     -1.0,      INFINITY,    -INFINITY, NAN,
                            1 + 0x1p-8,  1 + 0x3p-8,                    // ties of bfloat16: to even, down and up
                            1 + 0x1p-11, 1 + 0x3p-11,                   // ties of float16
                            65504,       65519.99,    65520,   -65520,  // largest float16, and the border to infinity
                            0x1p-14,     0x1p-24,     0x1p-25, 0x1.8p-25, 0x1.004p-14, 0x3p-25,   // float16 subnormals
                            0x1.fep127,  0x1.ffp127,  -3e38,   0x1p-126,  0x1p-133,    0x1p-140,  // bfloat16's ends
                            1e300,       1e-300};
  std::copy(std::begin(special), std::end(special), values.values.begin() + 20);
  for (const auto& [name, backend] : backends())
    for (const DType from : kFloats)
      for (const DType to : kFloats)
        for (const Margin margin : {Margin{}, kSlice}) {
          Matrix expected(values.rows, values.cols), exact(values.rows, values.cols);
          for (size_t i = 0; i < values.values.size(); ++i) {
            exact.values[i] = nearest(from, values.values[i]);
            // The 16-bit types are reached through float32.
            expected.values[i] =
                nearest(to, size_of(to) == 2 ? nearest(DType::kFloat32, exact.values[i]) : exact.values[i]);
          }
          const Buffer in(*backend, from, values.rows, values.cols, margin, Buffer::Access::kRead, &exact);
          const Buffer out(*backend, to, values.rows, values.cols, margin, Buffer::Access::kWrite);
          backend->cast(out, in);
          const std::string what = name + ": cast from " + name_of(from) + " to " + name_of(to);
          check_same(what, out.get(), expected);
          bool signs = true;  // -0 equals 0 and hides from check_same
          for (size_t i = 0; i < expected.values.size(); ++i)
            signs &=
                std::isnan(expected.values[i]) || std::signbit(expected.values[i]) == std::signbit(out.get().values[i]);
          CHECK_MESSAGE(signs, what, ": signs of zeros");
        }
}

TEST_CASE("gather and scatter of rows are adjoint") {
  const Device device = oracle();
  Random random(2);
  Matrix x = random.matrix(6, 3);
  const Matrix dout = random.matrix(4, 3);
  const Buffer rows = device.index({5, 0, 2, 3});
  const Buffer dx = device.inout(Kind::kCompute, Matrix(6, 3));
  device->scatter_add_rows(dx, device.input(Kind::kCompute, dout), rows.ints(), 4);
  check_gradient("gather_rows dx", dx.get(), x, [&] {
    const Buffer out = device.output(Kind::kCompute, 4, 3);
    device->gather_rows(out, device.input(Kind::kCompute, x), rows.ints());
    return dot(out.get(), dout);
  });
}

TEST_CASE("gather and scatter of rows: backends against the reference") {
  for (const Kind kind : {Kind::kCompute, Kind::kWide})
    for (const int64_t width : {1, 7, 64, 577})
      for (const int64_t rows : {1, 5, 67})
        for (const Margin margin : {Margin{}, kSlice})
          check_backends(
              "rows" + describe("rows", rows, "width", width, "wide", kind == Kind::kWide, "slices", margin.left > 0),
              [&](const Device& device) -> Outputs {
                Random random(3);
                const int64_t count = (rows + 1) / 2;  // of distinct rows: 0, 2, 4 … from the end
                std::vector<int32_t> chosen;
                for (int64_t r = 0; r < count; ++r) chosen.push_back(int32_t(rows - 1 - 2 * r));
                const Buffer rows_in = device.index(chosen);
                const Matrix values = random.matrix(rows, width);
                const Buffer x = device.input(kind, values, margin), sum = device.inout(kind, values, margin);
                const Buffer out = device.output(kind, count, width, margin);
                const Buffer in = device.input(kind, random.matrix(count + 2, width), margin);  // with filler rows
                device->gather_rows(out, x, rows_in.ints());
                device->scatter_add_rows(sum, in, rows_in.ints(), count);
                return {{"gather_rows", out.get(), 0},
                        {"scatter_add_rows", sum.get(), device.tolerance(kind == Kind::kCompute, 1)}};
              });
}

}  // namespace tunesmith::test
