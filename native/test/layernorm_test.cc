#include <cmath>

#include "test/harness.h"

namespace tunesmith::test {

namespace {

constexpr double kEpsilon = 1e-5;

struct Case {
  int64_t rows, width;
  bool bias, delta, in_place, dx_compute;
  Margin margin;  // of the activations: y, delta, dy
  double mean;    // of x, whose spread is 1

  std::string text() const {
    return "layernorm" + describe("rows", rows, "width", width, "bias", bias, "delta", delta, "in place", in_place,
                                  "dx_compute", dx_compute, "slices", margin.left > 0, "mean", mean);
  }
};

Matrix shifted(Matrix values, double by) {
  for (double& value : values.values) value += by;
  return values;
}

Outputs forward(const Device& device, const Case& c) {
  Random random(1);
  const Matrix residual = shifted(random.matrix(c.rows, c.width), c.mean);
  // Out of place the residual is an input, which must not change.
  const Buffer x = c.in_place ? device.inout(Kind::kWide, residual) : device.input(Kind::kWide, residual);
  const Buffer delta = device.input(Kind::kCompute, random.matrix(c.rows, c.width), c.margin);
  const Buffer weight = device.input(Kind::kWide, random.matrix(1, c.width));
  const Buffer bias = device.input(Kind::kWide, random.matrix(1, c.width));
  const Tensor bias_in = c.bias ? bias.tensor() : Tensor();
  const Buffer sum = device.output(Kind::kWide, c.rows, c.width);
  const Buffer statistics = device.output(Kind::kWide, 2, c.rows, kSlice);
  const Buffer y = device.output(Kind::kCompute, c.rows, c.width, c.margin);
  const Buffer again = device.output(Kind::kCompute, c.rows, c.width, c.margin);
  const Tensor out = !c.delta ? Tensor() : c.in_place ? x.tensor() : sum.tensor();
  device->layernorm_forward(out, y, statistics, x, c.delta ? delta.tensor() : Tensor(), weight, bias_in, kEpsilon);
  device->layernorm_apply(again, c.delta ? out : x.tensor(), statistics, weight, bias_in);

  // The mean is a sum of `width` terms of its size, and what is left of x after it is smaller by as much. A width of 1
  // leaves nothing but epsilon under the root.
  const double roundoffs = (4 + std::sqrt(double(c.width))) * (1 + std::abs(c.mean));
  const double floor = device.tolerance(0, roundoffs * (c.width == 1 ? 1 / std::sqrt(kEpsilon) : 1));
  Outputs outputs = {{"y", y.get(), device.tolerance(1, roundoffs), floor},
                     {"statistics", statistics.get(), device.tolerance(0, roundoffs), floor},
                     {"y of layernorm_apply", again.get(), device.tolerance(1, roundoffs), floor}};
  if (c.delta) outputs.push_back({"out", c.in_place ? x.get() : sum.get(), device.tolerance(0, 1)});
  return outputs;
}

Outputs backward(const Device& device, const Case& c) {
  Random random(2);
  const Matrix x = shifted(random.matrix(c.rows, c.width), c.mean);
  Matrix statistics(2, c.rows);
  for (int64_t r = 0; r < c.rows; ++r) {
    double squares = 0;
    for (int64_t h = 0; h < c.width; ++h) statistics(0, r) += x(r, h) / double(c.width);
    for (int64_t h = 0; h < c.width; ++h) squares += std::pow(x(r, h) - statistics(0, r), 2);
    statistics(1, r) = 1 / std::sqrt(squares / double(c.width) + kEpsilon);
  }
  const Buffer x_in = device.input(Kind::kWide, x), statistics_in = device.input(Kind::kWide, statistics, kSlice);
  const Buffer weight = device.input(Kind::kWide, random.matrix(1, c.width));
  const Buffer dy = device.input(Kind::kCompute, random.matrix(c.rows, c.width), c.margin);
  const Matrix before = random.matrix(c.rows, c.width);
  const Buffer dx = device.inout(Kind::kWide, before), dx_alone = device.inout(Kind::kWide, before);
  const Buffer dweight = device.inout(Kind::kWide, random.matrix(1, c.width));
  const Buffer dbias = device.inout(Kind::kWide, random.matrix(1, c.width));
  const Buffer dx_compute = device.output(Kind::kCompute, c.rows, c.width, c.margin);
  device->layernorm_backward(dx, c.dx_compute ? dx_compute.tensor() : Tensor(), dweight,
                             c.bias ? dbias.tensor() : Tensor(), dy, x_in, statistics_in, weight);
  device->layernorm_backward(dx_alone, Tensor(), Tensor(), Tensor(), dy, x_in, statistics_in, weight);
  check_same(c.text() + ": dx without dweight and dbias", dx_alone.get(), dx.get());
  if (c.dx_compute && device.type() != DType::kFloat64)
    check_same(c.text() + ": dx_compute is dx, rounded", dx_compute.get(), dx.get().rounded(device.type()));
  const double root = std::sqrt(double(c.rows)), steep = c.width == 1 ? 1 / std::sqrt(kEpsilon) : 1;
  const double input = 1 + std::abs(c.mean);  // what is left of x after its mean has so many roundoffs
  return {{"dx", dx.get(), device.tolerance(0, 8 + 4 * std::sqrt(double(c.width)) + 2 * input),
           device.tolerance(0, 2 * steep)},
          {"dweight", dweight.get(), device.tolerance(0, 8 + 2 * root + 2 * input),
           device.tolerance(0, root * input * steep)},
          {"dbias", dbias.get(), device.tolerance(0, 8 + 2 * root), device.tolerance(0, root)}};
}

}  // namespace

TEST_CASE("layernorm: gradients against finite differences") {
  const Device device = oracle();
  const int64_t rows = 3, width = 6;
  Random random(3);
  Matrix residual = random.matrix(rows, width), delta = random.matrix(rows, width), weight = random.matrix(1, width);
  Matrix bias = random.matrix(1, width);
  const Matrix dy = random.matrix(rows, width), dout = random.matrix(rows, width);
  struct Forward {
    Matrix out, y, statistics;
  };
  const auto forward = [&]() -> Forward {
    const Buffer out = device.output(Kind::kWide, rows, width), y = device.output(Kind::kCompute, rows, width);
    const Buffer statistics = device.output(Kind::kWide, 2, rows);
    device->layernorm_forward(out, y, statistics, device.input(Kind::kWide, residual),
                              device.input(Kind::kCompute, delta), device.input(Kind::kWide, weight),
                              device.input(Kind::kWide, bias), 0.1);
    return {out.get(), y.get(), statistics.get()};
  };
  // out flows on beside y: its gradient is what dx holds before the backward pass.
  const auto loss = [&] {
    const Forward result = forward();
    return dot(result.y, dy) + dot(result.out, dout);
  };
  const Forward saved = forward();
  const Buffer dx = device.inout(Kind::kWide, dout), dx_compute = device.output(Kind::kCompute, rows, width);
  const Buffer dweight = device.inout(Kind::kWide, Matrix(1, width));
  const Buffer dbias = device.inout(Kind::kWide, Matrix(1, width));
  device->layernorm_backward(dx, dx_compute, dweight, dbias, device.input(Kind::kCompute, dy),
                             device.input(Kind::kWide, saved.out), device.input(Kind::kWide, saved.statistics),
                             device.input(Kind::kWide, weight));
  check_gradient("layernorm dresidual", dx.get(), residual, loss);
  check_gradient("layernorm ddelta", dx_compute.get(), delta, loss);
  check_gradient("layernorm dweight", dweight.get(), weight, loss);
  check_gradient("layernorm dbias", dbias.get(), bias, loss);
}

TEST_CASE("layernorm: by hand") {
  const Device device = oracle();
  Matrix x(1, 4), weight(1, 4, 2), bias(1, 4, 10), expected(1, 4);
  x.values = {1, 3, 1, 3};  // mean 2, variance 1
  expected.values = {8, 12, 8, 12};
  const Buffer y = device.output(Kind::kCompute, 1, 4), statistics = device.output(Kind::kWide, 2, 1);
  device->layernorm_forward({}, y, statistics, device.input(Kind::kWide, x), {}, device.input(Kind::kWide, weight),
                            device.input(Kind::kWide, bias), 1e-30);
  check_close("layernorm by hand", y.get(), expected, 1e-14);
}

TEST_CASE("layernorm: backends against the reference") {
  for (const int64_t rows : {1, 3, 67})
    for (const int64_t width : {1, 7, 64, 100, 576, 1003})
      for (const bool bias : {false, true})
        for (const double mean : {0.0, 30.0})
          for (const Margin margin : {Margin{}, kSlice}) {
            for (const auto& [delta, in_place] : {std::pair{false, false}, {true, false}, {true, true}}) {
              const Case c{rows, width, bias, delta, in_place, false, margin, mean};
              check_backends(c.text(), [&](const Device& device) { return forward(device, c); });
            }
            for (const bool dx_compute : {false, true}) {
              const Case c{rows, width, bias, false, false, dx_compute, margin, mean};
              check_backends(c.text(), [&](const Device& device) { return backward(device, c); });
            }
          }
}

}  // namespace tunesmith::test
